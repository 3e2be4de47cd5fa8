"""`python -m serving verify|publish|fetch|prune|status|canary|promote|rollback`: versions at rest, and on model servers."""

import argparse
import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from serving.channel import CredentialsError, read_credentials
from serving.model_server import ModelServer
from serving.models_config import Deployment, locked, read_models_config
from serving.object_store import SCHEME, ObjectStore
from serving.release import ReleaseError, prune, publish, read_metadata, refuse_taken, verify
from serving.rollout import describe, promoted, roll_out, rolled_back, with_canary

LOAD_TIMEOUT_S = 600
"""Of a version in a process of its own: half a minute on two busy cores, and room for a cold disk."""

SETTLE_S = 10.0
"""See `roll_out`: longer than a gateway takes for one answer."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 1 and a line on stderr when it refuses."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ReleaseError, CredentialsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _verify(arguments: argparse.Namespace) -> None:
    metadata = verify(arguments.version)
    loaded = "" if arguments.files_only else f"; {_load(arguments.version)}"
    print(f"{arguments.version}: version {metadata.version} of {metadata.name}, checksums match{loaded}")


def _publish(arguments: argparse.Namespace) -> None:
    store = ObjectStore(arguments.base) if arguments.base.startswith(SCHEME) else None
    base = Path(arguments.base)
    # Both before it is loaded, which takes long: what is no version, and a number that is taken.
    number = read_metadata(arguments.candidate).version
    if store:
        store.refuse_taken(number)
    else:
        refuse_taken(base / str(number))
    loaded = "" if arguments.files_only else f"; {_load(arguments.candidate)}"
    published = store.publish(arguments.candidate) if store else publish(arguments.candidate, base)
    print(f"{published}{loaded}")


def _fetch(arguments: argparse.Namespace) -> None:
    store = ObjectStore(arguments.store)
    for number in sorted(read_models_config(arguments.config).versions):
        version = arguments.base / str(number)
        if version.exists():
            verify(version)
            print(f"{version}: there already, checksums match")
        else:
            print(f"{store.fetch(number, arguments.base)}: fetched, checksums match")


def _load(version: Path) -> str:
    """Load it in a process of its own: what it does there is what it will do in a model server.

    Returns:
        What was found.

    Raises:
        ReleaseError: it does not load, breaks the contract or answers otherwise than it did when it was made.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ReleaseError("loading a version needs TensorFlow; with --files-only checksums and metadata are compared alone")
    command = [sys.executable, "-m", "serving.embedded.check", str(version)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, check=False)  # noqa: S603  (our own)
    except subprocess.TimeoutExpired as error:
        raise ReleaseError(f"{version} is not loaded after {LOAD_TIMEOUT_S} s") from error
    if done.returncode:
        raise ReleaseError(f"it cannot be served: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return done.stdout.strip().splitlines()[-1]


def _prune(arguments: argparse.Namespace) -> None:
    with locked(arguments.config):
        used = read_models_config(arguments.config).versions
        gone = prune(arguments.base, used, arguments.keep)
    print(f"deleted: {', '.join(map(str, gone)) or 'none'}; in use: {', '.join(map(str, sorted(used)))}")


def _status(arguments: argparse.Namespace) -> None:
    deployment = read_models_config(arguments.config)
    credentials = read_credentials(arguments.ca, arguments.certificate, arguments.key)
    print(f"{arguments.config}: {describe(deployment)}")
    strangers = []
    for address in arguments.server:
        with ModelServer(address, credentials) as server:
            # A server that does not answer must not hide the others.
            try:
                states, labels = server.versions(), server.labels()
            except ReleaseError as error:
                strangers.append(str(error))
                continue
        for version, state in sorted(states.items(), reverse=True):
            print(f"{address}: version {version} {state.state} {state.error}".rstrip())
        for label, version in labels.items():
            print(f"{address}: {label} is answered by version {version}")
        if (
            labels != deployment.labels
            or {version for version, state in states.items() if state.is_live} != deployment.versions
        ):
            strangers.append(f"{address} differs from {arguments.config}")
    if strangers:
        raise ReleaseError("; ".join(strangers))


def _roll_out(arguments: argparse.Namespace) -> None:
    credentials = read_credentials(arguments.ca, arguments.certificate, arguments.key)
    with locked(arguments.config), ExitStack() as stack:
        before = read_models_config(arguments.config)
        after: Deployment = arguments.change(before, arguments)
        _compare_files(arguments.base, before, after)
        servers = [stack.enter_context(ModelServer(address, credentials)) for address in arguments.server]
        roll_out(servers, arguments.config, before, after, arguments.wait, arguments.settle)
    print(describe(after))


def _compare_files(base: Path | None, before: Deployment, after: Deployment) -> None:
    if base is not None and not base.is_dir():
        raise ReleaseError(f"{base} is no folder")
    folder = base or Path(before.base_path)
    for version in sorted(after.versions - before.versions):
        if folder.is_dir():
            verify(folder / str(version))
        else:
            print(f"{folder} is not on this machine: checksums of version {version} are not compared", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    command = add("verify", _verify, "check a published version: checksums, metadata, and that it answers as it did")
    command.add_argument("version", type=Path)
    _add_files_only(command)

    command = add("publish", _publish, "check an exported version and give it its number in one rename")
    command.add_argument("candidate", type=Path)
    command.add_argument("base", help="folder of the model's versions, or s3://BUCKET/PREFIX")
    _add_files_only(command)

    command = add("fetch", _fetch, "bring the versions that models.config lists from an object store into a folder")
    command.add_argument("store", help="s3://BUCKET/PREFIX")
    command.add_argument("base", type=Path, help="folder of the model's versions")
    _add_config(command)

    command = add("prune", _prune, "delete old versions that models.config does not load")
    command.add_argument("base", type=Path, help="folder of the model's versions")
    command.add_argument("--keep", type=int, default=2, help="how many that are not loaded stay, the newest (default 2)")
    _add_config(command)

    command = add("status", _status, "what every server has loaded, and which version answers to each label")
    _add_config(command)
    _add_servers(command)

    command = add("canary", _roll_out, "load a version beside the stable one")
    command.add_argument("version", type=int)
    command.set_defaults(change=lambda before, arguments: with_canary(before, arguments.version))
    _add_roll_out(command)

    command = add("promote", _roll_out, "make a version, or the canary, stable")
    command.add_argument("version", type=int, nargs="?")
    command.set_defaults(change=lambda before, arguments: promoted(before, arguments.version))
    _add_roll_out(command)

    command = add("rollback", _roll_out, "drop the canary, or go back to the previous version")
    command.set_defaults(change=lambda before, _: rolled_back(before))
    _add_roll_out(command)
    return parser


def _add_files_only(command: argparse.ArgumentParser) -> None:
    command.add_argument("--files-only", action="store_true", help="do not load it, which needs TensorFlow")


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, required=True, help="the models.config that the servers start from")


def _add_servers(command: argparse.ArgumentParser) -> None:
    command.add_argument("--server", action="append", required=True, help="host:port of a model server's gRPC; one for each")
    command.add_argument("--ca", default="", help="PEM file of the authority that signed the servers' certificates: TLS")
    command.add_argument("--certificate", default="", help="PEM file to show a server that asks for one")
    command.add_argument("--key", default="", help="PEM file of its key")


def _add_roll_out(command: argparse.ArgumentParser) -> None:
    _add_config(command)
    _add_servers(command)
    command.add_argument("--base", type=Path, help="folder of the versions as seen from here; default: as in models.config")
    command.add_argument("--wait", type=float, default=120, help="seconds a version may take to load (default 120)")
    command.add_argument(
        "--settle", type=float, default=SETTLE_S, help=f"seconds a version stays without its label (default {SETTLE_S:g})"
    )


if __name__ == "__main__":
    # A service manager's stop is put back like an interrupt.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
