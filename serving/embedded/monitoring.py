"""Counters and histograms under TensorFlow Serving's names, and the page that shows them in its format."""

import threading
from bisect import bisect_left
from collections.abc import Iterator

_LATENCY_BOUNDS = tuple(10 * 1.8**power for power in range(33))
_QUEUE_BOUNDS = tuple(100 * 1.2**power for power in range(52))
_BATCH_BOUNDS = tuple(2.0**power for power in range(15))

LOAD_ATTEMPTS = ":tensorflow:cc:saved_model:load_attempt_count"
REQUEST_COUNT = ":tensorflow:serving:request_count"
REQUEST_LATENCY = ":tensorflow:serving:request_latency"
RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency"
WARMUP_LATENCY = ":tensorflow:serving:model_warmup_latency"
WARMUP_RECORDS = ":tensorflow:serving:model_warmup_records_read"
QUEUING_LATENCY = ":tensorflow:serving:batching_session:queuing_latency"
WRAPPED_RUNS = ":tensorflow:serving:batching_session:wrapped_run_count"
PADDING_SIZE = ":tensorflow:serving:batching_session:padding_size"
INPUT_BATCH_SIZE = ":tensorflow:serving:batching_session:input_batch_size"
PROCESSED_BATCH_SIZE = ":tensorflow:serving:batching_session:processed_batch_size"

_COUNTERS = (LOAD_ATTEMPTS, REQUEST_COUNT, WARMUP_RECORDS, WRAPPED_RUNS)
_BOUNDS = {
    REQUEST_LATENCY: _LATENCY_BOUNDS,
    RUNTIME_LATENCY: _LATENCY_BOUNDS,
    WARMUP_LATENCY: _LATENCY_BOUNDS,
    QUEUING_LATENCY: _QUEUE_BOUNDS,
    PADDING_SIZE: _BATCH_BOUNDS,
    INPUT_BATCH_SIZE: _BATCH_BOUNDS,
    PROCESSED_BATCH_SIZE: _BATCH_BOUNDS,
}

Labels = tuple[tuple[str, str], ...]


class Monitoring:
    """All series of one server. The client library cannot write them: it appends `_total` to counters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, Labels], int] = {}
        self._histograms: dict[tuple[str, Labels], tuple[list[int], list[float]]] = {}

    def count(self, name: str, **labels: str) -> None:
        """Add one."""
        key = (name, tuple(labels.items()))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + 1

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put a value (microseconds or rows) into a histogram."""
        key = (name, tuple(labels.items()))
        bounds = _BOUNDS[name]
        with self._lock:
            buckets, total = self._histograms.setdefault(key, ([0] * (len(bounds) + 1), [0.0]))
            buckets[bisect_left(bounds, value)] += 1
            total[0] += value

    def page(self) -> str:
        """Text for Prometheus: TYPE lines, no HELP, as the real server writes it."""
        with self._lock:
            return "".join(f"{line}\n" for line in (*self._counter_lines(), *self._histogram_lines()))

    def _counter_lines(self) -> Iterator[str]:
        for name in _COUNTERS:
            series = [(labels, value) for (key, labels), value in self._counts.items() if key == name]
            if series:
                yield f"# TYPE {name} counter"
            for labels, value in series:
                yield f"{name}{_braces(labels)} {value}"

    def _histogram_lines(self) -> Iterator[str]:
        for name, bounds in _BOUNDS.items():
            series = [(labels, value) for (key, labels), value in self._histograms.items() if key == name]
            if series:
                yield f"# TYPE {name} histogram"
            for labels, (buckets, total) in series:
                running = 0
                for bound, bucket in zip((*(f"{bound:.6g}" for bound in bounds), "+Inf"), buckets, strict=True):
                    running += bucket
                    yield f"{name}_bucket{_braces((*labels, ('le', bound)))} {running}"
                yield f"{name}_sum{_braces(labels)} {total[0]:.6g}"
                yield f"{name}_count{_braces(labels)} {running}"


def _braces(labels: Labels) -> str:
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for _, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for (name, _), value in zip(labels, escaped, strict=True)) + "}"
