"""The file of API keys: what is known of each key, never the key itself."""

import datetime
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.identity import PERMISSIONS, Permission

ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
"""No underscore: it ends the id within the key."""

MODE: Final = 0o600
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SECRET_BYTES: Final = 32
_TIMES: Final = ("not_before", "expires", "revoked")
_FIELDS: Final = {"id", "sha256", "permissions", *_TIMES}


class KeyFileError(ValueError):
    """The file cannot be read as one of API keys; the text says where, and holds nothing of a key."""


@dataclass(frozen=True)
class ApiKey:
    """What is known of one key.

    Attributes:
        id: its name in the log and in the audit record.
        sha256: of the secret, in hexadecimal digits.
        permissions: what its holder may.
        not_before: when it begins to hold.
        expires: when it ends to.
        revoked: when it was taken back, otherwise None.
    """

    id: str
    sha256: str
    permissions: frozenset[Permission]
    not_before: datetime.datetime
    expires: datetime.datetime
    revoked: datetime.datetime | None = None

    def holds(self, now: datetime.datetime) -> bool:
        """Whether it opens anything at this moment."""
        return self.not_before <= now < self.expires and (self.revoked is None or now < self.revoked)


def digest(secret: str) -> str:
    """What is kept of a secret.

    A fast hash, on purpose: slow ones protect passwords that people choose, which can be guessed. These secrets are 256 random
    bits, which no speed finds, and a slow hash would cost each request tens of milliseconds of a processor.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def new_secret() -> str:
    """256 bits of the system's randomness, as 43 characters."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def load(path: Path) -> dict[str, ApiKey]:
    """The keys by their id.

    Raises:
        KeyFileError: the file cannot be read, or is not what `save` writes.
    """
    try:
        document = json.loads(path.read_bytes())
        keys = [_parse(entry) for entry in document["keys"]]
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise KeyFileError(f"{path}: {error}") from error
    by_id = {key.id: key for key in keys}
    if len(by_id) != len(keys):
        raise KeyFileError(f"{path}: an id stands there twice")
    return by_id


def save(path: Path, keys: Iterable[ApiKey]) -> None:
    """Replace the file in one step; only its owner may read it, who stays the same."""
    document = {"keys": [_describe(key) for key in keys]}
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it for its owner alone
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(MODE)
        with suppress(FileNotFoundError):
            before = path.stat()
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(name, before.st_uid, before.st_gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _parse(entry: Mapping[str, Any]) -> ApiKey:
    if unknown := set(entry) - _FIELDS:
        raise KeyFileError(f"unknown fields: {', '.join(sorted(unknown))}")
    if not ID.fullmatch(entry["id"]):
        raise KeyFileError("an id is not of lower case letters, digits and hyphens")
    if not _DIGEST.fullmatch(entry["sha256"]):
        raise KeyFileError(f"{entry['id']}: sha256 is not 64 hexadecimal digits")
    permissions = frozenset(entry["permissions"])
    if not permissions or not permissions <= set(PERMISSIONS):
        raise KeyFileError(f"{entry['id']}: permissions are some of {', '.join(PERMISSIONS)}")
    times = {name: datetime.datetime.fromisoformat(entry[name]) for name in _TIMES if name in entry}
    if any(time.tzinfo is None for time in times.values()):
        raise KeyFileError(f"{entry['id']}: a time has no time zone")
    return ApiKey(entry["id"], entry["sha256"], permissions, times["not_before"], times["expires"], times.get("revoked"))


def _describe(key: ApiKey) -> dict[str, object]:
    times = {name: getattr(key, name) for name in _TIMES}
    return {"id": key.id, "sha256": key.sha256, "permissions": sorted(key.permissions)} | {
        name: time.isoformat(timespec="seconds") for name, time in times.items() if time is not None
    }
