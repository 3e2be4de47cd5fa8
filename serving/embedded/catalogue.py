"""Which versions are loaded: polls the folders, loads before it unloads, resolves names, versions and labels."""

import gc
import logging
import math
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import grpc
from tensorflow_serving.apis import model_pb2

from serving.embedded.config import ModelConfig
from serving.embedded.flags import Flags
from serving.embedded.monitoring import LOAD_ATTEMPTS, Monitoring
from serving.embedded.servable import Servable
from serving.embedded.status import ServingError
from serving.embedded.versions import (
    Records,
    State,
    VersionRecord,
    choose_versions,
    find_failure,
    find_surplus,
    find_versions,
    is_decided,
    plan_loads,
)

_log = logging.getLogger(__name__)


class Catalogue:
    """The models of one server.

    Availability before freshness: an unwanted version goes only once a wanted one is available. One thread polls and loads. All
    others read, or leave a configuration for it, so that no label and no request ever waits for a load or a retry.
    """

    def __init__(self, flags: Flags, metrics: Monitoring) -> None:
        self._flags = flags
        self._metrics = metrics
        # Guards what follows, and is never held while a folder is read or a version is loaded.
        self._changed = threading.Condition()
        self._configs: dict[str, ModelConfig] = {}
        self._labels: dict[str, dict[str, int]] | None = None
        self._records: dict[str, Records] = {}
        self._has_news = False
        self._has_litter = False
        self._stopping = False
        self._poller = threading.Thread(target=self._keep_polling, name="version-poller", daemon=True)

    def start(self) -> None:
        """Begin to poll and to load."""
        self._poller.start()

    def stop(self) -> None:
        """End the polling, after the load it is in. Requests in flight keep their version."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._poller.is_alive():
            self._poller.join()

    def names(self) -> list[str]:
        """Models that are configured."""
        with self._changed:
            return list(self._configs)

    def configure(self, configs: Sequence[ModelConfig]) -> list[str]:
        """Serve these models and no others; labels hold at once, versions follow.

        Returns:
            Names of the models that are new.

        Raises:
            ServingError: FAILED_PRECONDITION for a label on a version that is not available.
        """
        with self._changed:
            labels = self._check_labels(configs)
            new = [config.name for config in configs if config.name not in self._configs]
            self._configs = {config.name: config for config in configs}
            # A server that was never given a label says so to whoever asks for one.
            if labels or self._labels is not None:
                self._labels = labels
            for name in self._records.keys() - self._configs.keys():
                del self._records[name]
            self._has_news = True
            self._changed.notify_all()
        return new

    def wait_for(self, names: Collection[str], timeout_s: float, what: str) -> bool:
        """Whether each of these models has an available version within that time, or is no longer configured.

        Args:
            names: models.
            timeout_s: how long to wait at most.
            what: the real server's word for them in its error.

        Raises:
            ServingError: UNKNOWN when they are all decided and one has failed in all its versions, for good.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: all(name not in self._configs or is_decided(self._records.get(name, {})) for name in names), timeout_s
            ):
                return False
            failures = [(name, *failure) for name in names if (failure := find_failure(self._records.get(name, {})))]
        if failures:
            text = "".join(
                f"{{{{name: {name} version: {version}}} due to error: {error}}}, " for name, version, error in failures
            )
            raise ServingError(grpc.StatusCode.UNKNOWN, f"{len(failures)} {what} did not become available: {{{text}}}")
        return True

    def resolve(self, spec: model_pb2.ModelSpec) -> Servable:
        """The version that a request asks for by number, by label, or as the latest.

        Raises:
            ServingError: with the real server's text.
        """
        if not spec.name:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        with self._changed:
            ready = {
                version: record.servable for version, record in self._records.get(spec.name, {}).items() if record.servable
            }
            if choice == "version":
                version = spec.version.value
            elif choice == "version_label":
                version = self._version_of_label(spec.name, spec.version_label)
            else:
                if not ready:
                    raise ServingError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})")
                version = max(ready)
        if version not in ready:
            raise ServingError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({spec.name}, {version})")
        return ready[version]

    def statuses(self, name: str, version: int | None) -> list[tuple[int, VersionRecord]]:
        """Versions of a model, the highest first.

        Raises:
            ServingError: NOT_FOUND.
        """
        with self._changed:
            found = self._records.get(name, {})
            records = [(number, replace(found[number])) for number in sorted(found, reverse=True)]
        if not records:
            raise ServingError(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        if version is not None:
            records = [(number, record) for number, record in records if number == version]
            if not records:
                raise ServingError(grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model {name}")
        return records

    def _version_of_label(self, name: str, label: str) -> int:
        if self._labels is None:
            raise ServingError(grpc.StatusCode.UNAVAILABLE, f"Model labels does not init yet.{label}")
        if label not in self._labels.get(name, {}):
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
        return self._labels[name][label]

    def _check_labels(self, configs: Sequence[ModelConfig]) -> dict[str, dict[str, int]]:
        labels = {config.name: config.labels for config in configs if config.labels}
        for name, versions in labels.items():
            for label, version in versions.items():
                record = self._records.get(name, {}).get(version)
                if record and record.servable:
                    continue
                held = (self._labels or {}).get(name, {}).get(label, version)
                if not self._flags.allow_version_labels_for_unavailable_models or held != version:
                    raise ServingError(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {name}, which is not currently available for "
                        "inference",
                    )
        return labels

    def _keep_polling(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._has_news or self._stopping, self._pause_s())
                if self._stopping:
                    return
                self._has_news = False
                configs = list(self._configs.values())
            for config in configs:
                self._poll(config)
            self._sweep()

    def _sweep(self) -> None:
        """Free what gone versions left: TensorFlow's objects hold each other, and Python may collect them hours later."""
        if self._has_litter:
            self._has_litter = False
            gc.collect()

    def _litter(self) -> None:
        # No lock: it runs wherever the last one lets go of a version.
        self._has_litter = True

    def _pause_s(self) -> float:
        """Until the next poll or the next retry; never nothing, for a folder that cannot be read leaves its retry due."""
        period = self._flags.file_system_poll_wait_seconds
        dues = [record.due for records in self._records.values() for record in records.values() if record.is_pending]
        pause = min(period if period > 0 else math.inf, min(dues, default=math.inf) - time.monotonic())
        return min(max(pause, 0.1), threading.TIMEOUT_MAX)

    def _poll(self, config: ModelConfig) -> None:
        try:
            found = find_versions(config.base_path)
        except (OSError, ValueError) as error:
            _log.error("Could not find base path %s for servable %s with error %s", config.base_path, config.name, error)
            return
        if not found:
            hint = "Did you forget to name your leaf directory as a number (eg. '/1/')?"
            _log.warning("No versions of servable %s found under base path %s. %s", config.name, config.base_path, hint)
        wanted = choose_versions(found, config.policy)
        with self._changed:
            if not self._is_current(config):
                return
            records = self._records.setdefault(config.name, {})
            due = plan_loads(records, wanted, are_listed=config.policy.WhichOneof("policy_choice") == "specific")
        # Each once in a pass: what a broken version needs in retries must not keep a good one waiting.
        for version in due:
            self._load(config, version, records[version], wanted[version])
        with self._changed:
            if not self._is_current(config):
                return
            for version in find_surplus(records, wanted):
                records[version] = VersionRecord(State.END)
                _log.info("Unloaded servable version {name: %s version: %d}", config.name, version)

    def _load(self, config: ModelConfig, version: int, record: VersionRecord, path: Path) -> None:
        with self._changed:
            if self._stopping or not self._is_current(config):
                return
            record.state = State.LOADING
        result = self._try_to_load(config.name, version, path)
        with self._changed:
            if isinstance(result, Servable):
                record.state, record.servable = State.AVAILABLE, result
            else:
                record.fail(result, self._flags.max_num_load_retries, self._flags.load_retry_interval_micros / 1e6)
            self._changed.notify_all()

    def _try_to_load(self, name: str, version: int, path: Path) -> Servable | ServingError:
        try:
            servable = self._read(name, version, path)
            if self._flags.enable_model_warmup:
                servable.warm_up(path, self._metrics)
        except ServingError as failure:
            # A new one: the traceback would keep the version in memory, and the process from ending while TensorFlow drops it.
            error = ServingError(failure.code, failure.message)
        except Exception as failure:  # noqa: BLE001  (a damaged version can raise anything, and the polling must outlive it)
            error = ServingError(grpc.StatusCode.UNKNOWN, f"{type(failure).__name__}: {failure}")
        else:
            weakref.finalize(servable, self._litter).atexit = False
            _log.info("Successfully loaded servable version {name: %s version: %d}", name, version)
            return servable
        self._litter()
        _log.warning("Loading servable {name: %s version: %d} failed: %s", name, version, error)
        return error

    def _read(self, name: str, version: int, path: Path) -> Servable:
        status = "fail"
        try:
            servable = Servable(name, version, path)
            status = "success"
        finally:
            # A file is refused before anybody tries to load it.
            if not path.is_file():
                self._metrics.count(LOAD_ATTEMPTS, model_path=str(path), status=status)
        return servable

    def _is_current(self, config: ModelConfig) -> bool:
        """False once a reload has replaced it; the next pass follows at once and has the new one."""
        return self._configs.get(config.name) is config
