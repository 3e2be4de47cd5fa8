"""Which versions are loaded: polls the folders, loads before it unloads, resolves names, versions and labels."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from serving.embedded.config import ModelConfig
from serving.embedded.flags import Flags
from serving.embedded.monitoring import Monitoring
from serving.embedded.servable import Servable
from serving.embedded.status import ServingError
from serving.embedded.versions import choose_versions, find_versions

State = get_model_status_pb2.ModelVersionStatus
_log = logging.getLogger(__name__)


@dataclass
class VersionRecord:
    """What became of one version.

    Attributes:
        state: a value of ModelVersionStatus.State.
        servable: while it answers, None otherwise. A request that has it keeps it alive to its end.
        error: why it ended, None otherwise.
    """

    state: int
    servable: Servable | None = None
    error: ServingError | None = None


class Catalogue:
    """The models of one server.

    Availability before freshness: an unwanted version goes only once a wanted one is available. A version that failed is not
    tried again by itself; only a higher number helps, as with the real server.
    """

    def __init__(self, flags: Flags, metrics: Monitoring) -> None:
        self._flags = flags
        self._metrics = metrics
        # Loading takes long and is done by one thread at a time; looking up must never wait for it.
        self._loading = threading.Lock()
        self._lock = threading.Lock()
        self._configs: dict[str, ModelConfig] = {}
        self._labels: dict[str, dict[str, int]] | None = None
        self._records: dict[str, dict[int, VersionRecord]] = {}
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._keep_polling, name="version-poller", daemon=True)

    def start(self, configs: Sequence[ModelConfig]) -> None:
        """Load the first versions, waiting until every model has one, then keep polling.

        Raises:
            ServingError: a version failed to load, or a label names one that is not there.
        """
        self.reload(configs, at_startup=True)
        self._poller.start()

    def stop(self) -> None:
        """End the polling. Requests in flight keep their version."""
        self._stop.set()
        if self._poller.is_alive():
            self._poller.join()

    def reload(self, configs: Sequence[ModelConfig], at_startup: bool = False) -> None:
        """Serve these models and no others; waits for new models only.

        Raises:
            ServingError: FAILED_PRECONDITION for a label on a version that is not available, UNKNOWN for a new model that does
                not load.
        """
        with self._loading:
            labels = self._check_labels(configs)
            with self._lock:
                new = [config.name for config in configs if config.name not in self._configs]
                self._configs = {config.name: config for config in configs}
                # A server that was never given a label says so to whoever asks for one.
                if labels or self._labels is not None:
                    self._labels = labels
                for name in self._records.keys() - self._configs.keys():
                    del self._records[name]
            for name in new:
                self._wait_for_version(name)
            failed = self._failures(new)
            if failed:
                what = "servable(s)" if at_startup else "model(s)"
                raise ServingError(
                    grpc.StatusCode.UNKNOWN, f"{len(failed)} {what} did not become available: {{{''.join(failed)}}}"
                )

    def resolve(self, spec: model_pb2.ModelSpec) -> Servable:
        """The version that a request asks for by number, by label, or as the latest.

        Raises:
            ServingError: with the real server's text.
        """
        if not spec.name:
            raise _error(grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        with self._lock:
            ready = {
                version: record.servable
                for version, record in self._records.get(spec.name, {}).items()
                if record.servable is not None
            }
            if choice == "version":
                version = spec.version.value
            elif choice == "version_label":
                version = self._version_of_label(spec.name, spec.version_label)
            else:
                if not ready:
                    raise _error(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})")
                version = max(ready)
        if version not in ready:
            raise _error(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({spec.name}, {version})")
        return ready[version]

    def statuses(self, name: str, version: int | None) -> list[tuple[int, VersionRecord]]:
        """Versions of a model, the highest first.

        Raises:
            ServingError: NOT_FOUND.
        """
        with self._lock:
            records = sorted(self._records.get(name, {}).items(), reverse=True)
        if not records:
            raise _error(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        if version is not None:
            records = [(number, record) for number, record in records if number == version]
            if not records:
                raise _error(grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model {name}")
        return records

    def _version_of_label(self, name: str, label: str) -> int:
        if self._labels is None:
            raise _error(grpc.StatusCode.UNAVAILABLE, f"Model labels does not init yet.{label}")
        if label not in self._labels.get(name, {}):
            raise _error(grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
        return self._labels[name][label]

    def _check_labels(self, configs: Sequence[ModelConfig]) -> dict[str, dict[str, int]]:
        labels = {config.name: config.labels for config in configs if config.labels}
        for name, versions in labels.items():
            for label, version in versions.items():
                record = self._records.get(name, {}).get(version)
                if record is not None and record.servable is not None:
                    continue
                held = (self._labels or {}).get(name, {}).get(label, version)
                if not self._flags.allow_version_labels_for_unavailable_models or held != version:
                    raise _error(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {name}, which is not currently available for "
                        "inference",
                    )
        return labels

    def _keep_polling(self) -> None:
        wait = self._flags.file_system_poll_wait_seconds
        while wait > 0 and not self._stop.wait(wait):
            with self._loading:
                for name in list(self._configs):
                    self._poll(name)

    def _wait_for_version(self, name: str) -> None:
        while not self._stop.is_set():
            self._poll(name)
            if self._records.get(name):
                return
            self._stop.wait(max(self._flags.file_system_poll_wait_seconds, 0.1))

    def _poll(self, name: str) -> None:
        config = self._configs[name]
        try:
            found = find_versions(config.base_path)
        except OSError as error:
            _log.error("Could not find base path %s for servable %s with error %s", config.base_path, name, error)
            return
        if not found:
            _log.warning(
                "No versions of servable %s found under base path %s. Did you forget to name your leaf directory as a number "
                "(eg. '/1/')?",
                name,
                config.base_path,
            )
        wanted = choose_versions(found, config.policy)
        records = self._records.setdefault(name, {})
        for version in sorted(
            wanted.keys() - {version for version, record in records.items() if _is_settled(record)}, reverse=True
        ):
            self._load(name, version, wanted[version])
        available = {version for version, record in records.items() if record.servable is not None}
        if available & wanted.keys() or not wanted:
            for version in sorted(available - wanted.keys()):
                self._unload(name, version)

    def _load(self, name: str, version: int, path: Path) -> None:
        self._record(name, version, VersionRecord(State.LOADING))
        error: ServingError | None = None
        for attempt in range(1 + self._flags.max_num_load_retries):
            if attempt and self._stop.wait(self._flags.load_retry_interval_micros / 1e6):
                return
            try:
                servable = Servable(name, version, path)
                if self._flags.enable_model_warmup:
                    servable.warm_up(path, self._metrics)
            except ServingError as failure:
                error = failure
                _log.warning("Loading servable {name: %s version: %d} failed: %s", name, version, failure.message)
            else:
                self._record(name, version, VersionRecord(State.AVAILABLE, servable))
                _log.info("Successfully loaded servable version {name: %s version: %d}", name, version)
                return
        self._record(name, version, VersionRecord(State.END, error=error))

    def _unload(self, name: str, version: int) -> None:
        self._record(name, version, VersionRecord(State.END))
        _log.info("Unloaded servable version {name: %s version: %d}", name, version)

    def _record(self, name: str, version: int, record: VersionRecord) -> None:
        with self._lock:
            self._records.setdefault(name, {})[version] = record

    def _failures(self, names: Sequence[str]) -> list[str]:
        return [
            f"{{{{name: {name} version: {version}}} due to error: {record.error.code.name}: {record.error.message}}}, "
            for name in names
            for version, record in self._records.get(name, {}).items()
            if record.error is not None
        ]


def _is_settled(record: VersionRecord) -> bool:
    """Loaded, or failed for good; a version that was unloaded may come back."""
    return record.servable is not None or record.error is not None


def _error(code: grpc.StatusCode, message: str) -> ServingError:
    return ServingError(code, message)
