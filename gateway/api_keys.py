"""API keys: which one a request shows; and `python -m gateway.api_keys`, which makes, revokes and lists them.

After GOV.UK Notify's: a key is named, is shown once, and is kept as a hash; a new one is made beside the old one, and the old
one is revoked when nobody uses it any more.
"""

import argparse
import dataclasses
import datetime
import hmac
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from gateway import key_file, metrics
from gateway.identity import PERMISSIONS, Identity
from gateway.key_file import ApiKey, KeyFileError

PREFIX: Final = "dsk_"
"""Of every key, so that a scanner for leaked secrets knows them: dsk_<id>_<secret>."""

_NO_DIGEST: Final = "0" * 64
_log = structlog.get_logger()


def utc_now() -> datetime.datetime:
    """The time by which keys hold."""
    return datetime.datetime.now(datetime.UTC)


class ApiKeys:
    """The keys of one file, which is read again when it changes."""

    def __init__(self, path: Path, now: Callable[[], datetime.datetime] = utc_now) -> None:
        """One for each process.

        Raises:
            KeyFileError: the file is missing or broken. Later that only keeps the old keys.
        """
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._seen = self._state()
        self._keys = key_file.load(path)
        for result in ("read", "failed"):
            metrics.KEY_FILE_READS.labels(result)

    def identify(self, token: str) -> Identity | None:
        """Whose key it is; None when it opens nothing, for whatever reason."""
        self._refresh()
        name, _, secret = token.removeprefix(PREFIX).partition("_")
        key = self._keys.get(name) if token.startswith(PREFIX) else None
        # A key that does not exist takes the same comparison as one that does.
        is_right = hmac.compare_digest(key_file.digest(secret), key.sha256 if key else _NO_DIGEST)
        if key is None or not is_right or not key.holds(self._now()):
            return None
        return Identity(f"key:{key.id}", key.permissions)

    def _refresh(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        with self._lock:
            if state == self._seen:
                return
            # Noted before it is read: a file that changes meanwhile is read once more.
            self._seen = state
            try:
                self._keys = key_file.load(self._path)
            except KeyFileError as error:
                metrics.KEY_FILE_READS.labels("failed").inc()
                _log.error("the API keys stay as they were", reason=str(error))
            else:
                metrics.KEY_FILE_READS.labels("read").inc()

    def _state(self) -> tuple[int, int, int] | None:
        """What changes with the file's content; a volume of Kubernetes changes the inode only."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, revoke or list keys."""
    options = _parser().parse_args(arguments)
    try:
        keys = key_file.load(options.file) if options.file.exists() or options.command != "create" else {}
        return int(options.run(options, keys))
    except (KeyFileError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _create(options: argparse.Namespace, keys: dict[str, ApiKey]) -> int:
    if not key_file.ID.fullmatch(options.id):
        raise KeyFileError("an id has up to 40 lower case letters, digits and hyphens")
    if options.id in keys:
        raise KeyFileError(f"{options.id} is there already; take another id, for instance {options.id}-2")
    secret, now = key_file.new_secret(), utc_now()
    permissions, expires = frozenset(options.permissions), now + datetime.timedelta(days=options.days)
    keys[options.id] = ApiKey(options.id, key_file.digest(secret), permissions, now, expires)
    key_file.save(options.file, keys.values())
    sys.stderr.write(f"Shown only now; expires {expires:%Y-%m-%d}:{os.linesep}")
    sys.stdout.write(f"{PREFIX}{options.id}_{secret}\n")
    return 0


def _revoke(options: argparse.Namespace, keys: dict[str, ApiKey]) -> int:
    if options.id not in keys:
        raise KeyFileError(f"{options.file} has no key {options.id}")
    if keys[options.id].revoked is None:
        keys[options.id] = dataclasses.replace(keys[options.id], revoked=utc_now())
        key_file.save(options.file, keys.values())
    sys.stdout.write(f"{options.id} opens nothing any more\n")
    return 0


def _list(options: argparse.Namespace, keys: dict[str, ApiKey]) -> int:  # noqa: ARG001  (the signature of every command)
    for key in keys.values():
        state = f"revoked {key.revoked:%Y-%m-%d}" if key.revoked else "holds" if key.holds(utc_now()) else "does not hold"
        permissions = ",".join(sorted(key.permissions))
        sys.stdout.write(f"{key.id}  {permissions}  {key.not_before:%Y-%m-%d} to {key.expires:%Y-%m-%d}  {state}\n")
    return 0


def _days(text: str) -> int:
    if not 0 < int(text) <= 366:  # noqa: PLR2004  (a year)
        raise ValueError
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.api_keys", description="Makes, revokes and lists API keys.")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key and print it, once")
    create.add_argument("--permissions", nargs="+", choices=PERMISSIONS, required=True)
    create.add_argument("--days", type=_days, default=90, help="1 to 366; a key is made to be replaced")
    revoke = commands.add_parser("revoke", help="close a key within the second in which the gateway is asked next")
    listing = commands.add_parser("list", help="print what is known of each key")
    for command, run in ((create, _create), (revoke, _revoke), (listing, _list)):
        command.add_argument("--file", type=Path, required=True, help="the gateway's GATEWAY_API_KEYS_FILE")
        command.set_defaults(run=run)
    for command in (create, revoke):
        command.add_argument("--id", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
