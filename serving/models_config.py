"""models.config as one value: which versions of the model are loaded, and what they are called."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from serving.contract import CANARY_LABEL, LABELS, MODEL_NAME, STABLE_LABEL
from serving.release import ReleaseError
from serving.wire import management_pb2 as management

PLATFORM = "tensorflow"


@dataclass(frozen=True)
class Deployment:
    """What a model server is told to serve.

    Versions are listed one by one: under `latest`, a version goes live by being copied, and the one that carries a label is
    unloaded when enough newer ones appear.

    Attributes:
        base_path: folder of the versions, as the server sees it.
        versions: those it loads.
        labels: label -> version; `stable` and `canary` always, `previous` after a promotion. Numbers are int64, above zero.
    """

    base_path: str
    versions: frozenset[int]
    labels: Mapping[str, int]

    def __post_init__(self) -> None:
        """Refuse what a server would serve half of.

        Raises:
            ReleaseError: which label.
        """
        for label in (STABLE_LABEL, CANARY_LABEL):
            if label not in self.labels:
                raise ReleaseError(f"no version is called {label}")
        for label, version in self.labels.items():
            if label not in LABELS:
                raise ReleaseError(f"the label {label!r} is none of {', '.join(LABELS)}")
            if version not in self.versions:
                raise ReleaseError(f"{label} is version {version}, which is not loaded")
        for version in self.versions:
            if not 0 < version < 2**63:
                raise ReleaseError(f"{version} is no number of a version")

    def to_message(self) -> management.ModelServerConfig:
        """As the model server takes it."""
        policy = management.ServableVersionPolicy(
            specific=management.ServableVersionPolicy.Specific(versions=sorted(self.versions))
        )
        config = management.ModelConfig(
            name=MODEL_NAME,
            base_path=self.base_path,
            model_platform=PLATFORM,
            model_version_policy=policy,
            version_labels=dict(self.labels),
        )
        return management.ModelServerConfig(model_config_list=management.ModelConfigList(config=[config]))


def read_models_config(path: Path) -> Deployment:
    """Read the file.

    Raises:
        ReleaseError: it is not readable, or configures something else than the listed versions of this one model.
    """
    try:
        message = text_format.Parse(path.read_text(), management.ModelServerConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ReleaseError(f"{path}: {error}") from error
    configs = message.model_config_list.config
    if [config.name for config in configs] != [MODEL_NAME]:
        raise ReleaseError(f"{path} configures {[config.name for config in configs]}, expected {MODEL_NAME!r} alone")
    if configs[0].model_version_policy.WhichOneof("policy_choice") != "specific":
        raise ReleaseError(f"{path} does not list the versions to load: model_version_policy {{ specific {{ versions: N }} }}")
    try:
        return Deployment(
            base_path=configs[0].base_path,
            versions=frozenset(configs[0].model_version_policy.specific.versions),
            labels=dict(configs[0].version_labels),
        )
    except ReleaseError as error:
        raise ReleaseError(f"{path}: {error}") from error


def write_models_config(path: Path, deployment: Deployment) -> None:
    """Replace the file in one rename; the comment at its head stays.

    Raises:
        ReleaseError: it cannot be written.
    """
    path = path.resolve()
    partial = path.with_name(f"{path.name}.partial")
    try:
        lines, status = path.read_text().splitlines(keepends=True), path.stat()
        head = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
        with partial.open("w") as file:
            file.write("".join(lines[:head]) + text_format.MessageToString(deployment.to_message()))
            os.fchmod(file.fileno(), status.st_mode & 0o777)
            # The server that reads it may be another user than whoever operates it.
            if (os.geteuid(), os.getegid()) != (status.st_uid, status.st_gid):
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ReleaseError(f"{path} was not written: {error}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by whoever changes a models.config or what it names: two at a time would undo each other's steps.

    The folder is locked, for the file itself is replaced at every step.

    Raises:
        ReleaseError: somebody else holds it.
    """
    try:
        folder = os.open(path.resolve().parent, os.O_RDONLY)
    except OSError as error:
        raise ReleaseError(f"{path}: {error}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ReleaseError(f"another command is at work on {path}") from error
    finally:
        os.close(folder)
