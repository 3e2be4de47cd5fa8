"""The versions of one model: which folders exist, which of them a policy wants, what became of each."""

import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig

from serving.embedded.servable import Servable
from serving.embedded.status import ServingError

State = get_model_status_pb2.ModelVersionStatus

_NUMBER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_INT64 = range(-(2**63), 2**63)
"""Together: what absl::SimpleAtoi takes for a version."""


@dataclass
class VersionRecord:
    """What became of one version.

    Attributes:
        state: a value of ModelVersionStatus.State.
        servable: while it answers, None otherwise. A request that has it keeps it alive to its end.
        error: why it ended, None otherwise.
        attempts: loads that failed.
        due: monotonic time before which it is not tried again.
        was_dropped: it failed, and was then no longer listed.
    """

    state: int = State.START
    servable: Servable | None = None
    error: ServingError | None = None
    attempts: int = 0
    due: float = 0.0
    was_dropped: bool = False

    @property
    def is_pending(self) -> bool:
        """Still to be loaded, for the first time or again."""
        return self.state in (State.START, State.LOADING)

    @property
    def may_come_back(self) -> bool:
        """Unloaded, or failed and since dropped from a list.

        Under `latest`, one that failed is never tried again: there only a higher number helps, as with the real server.
        """
        return self.state == State.END and (self.error is None or self.was_dropped)

    def fail(self, error: ServingError, retries: int, interval_s: float) -> None:
        """Note a load that failed: it is due again later, or that was the last."""
        self.attempts += 1
        self.due = time.monotonic() + interval_s
        if self.attempts > retries:
            self.state, self.error = State.END, error


Records = dict[int, VersionRecord]


def find_versions(base: Path) -> dict[int, Path]:
    """Version -> folder, of every child whose name is a number; other names are ignored.

    Raises:
        OSError: the base path cannot be listed.
    """
    numbers = {int(path.name): path for path in sorted(base.iterdir()) if _NUMBER.fullmatch(path.name)}
    return {number: path for number, path in numbers.items() if number in _INT64}


def choose_versions(found: dict[int, Path], policy: FileSystemStoragePathSourceConfig.ServableVersionPolicy) -> dict[int, Path]:
    """Those the policy wants: the latest so many (1 unless said), all, or the listed ones that exist."""
    match policy.WhichOneof("policy_choice"):
        case "all":
            wanted = set(found)
        case "specific":
            wanted = set(policy.specific.versions)
        case _:
            wanted = set(sorted(found)[-(policy.latest.num_versions or 1) :])
    return {version: path for version, path in found.items() if version in wanted}


def plan_loads(records: Records, wanted: Collection[int], *, are_listed: bool) -> list[int]:
    """Versions to try to load now, the highest first.

    All that are wanted are recorded before the first is tried, so that none looks like the model's only one.

    Args:
        records: of the model's versions.
        wanted: those that the policy wants.
        are_listed: the policy names them one by one.
    """
    for version in wanted:
        if version not in records or records[version].may_come_back:
            records[version] = VersionRecord()
    for version, record in records.items():
        if version not in wanted:
            record.was_dropped = are_listed
            if record.is_pending:
                record.state = State.END
    now = time.monotonic()
    return sorted((version for version in wanted if records[version].is_pending and records[version].due <= now), reverse=True)


def find_surplus(records: Records, wanted: Collection[int]) -> list[int]:
    """Versions to unload: unwanted ones, once a wanted one is available or none is wanted at all."""
    available = {version for version, record in records.items() if record.servable}
    if wanted and not available.intersection(wanted):
        return []
    return sorted(available.difference(wanted))


def is_decided(records: Records) -> bool:
    """Whether one version is available, or all have failed for good."""
    if any(record.servable for record in records.values()):
        return True
    return any(record.error for record in records.values()) and not any(record.is_pending for record in records.values())


def find_failure(records: Records) -> tuple[int, ServingError] | None:
    """Highest version that failed, if none is available."""
    if any(record.servable for record in records.values()):
        return None
    return max(((version, record.error) for version, record in records.items() if record.error), default=None)
