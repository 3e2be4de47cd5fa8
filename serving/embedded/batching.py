"""Joins requests that arrive close together into one run, as TensorFlow Serving's batching session does."""

import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from serving import tracing
from serving.embedded import monitoring
from serving.embedded.config import Batching
from serving.embedded.monitoring import Monitoring
from serving.embedded.servable import Servable, Tensors, runtime_name
from serving.embedded.status import ServingError

Outputs = dict[str, npt.NDArray[Any]]
QueueKey = tuple[str, int, str, tuple[str, ...]]
"""Model, version, signature, outputs asked for: requests that differ in one of them never share a run."""


@dataclass
class _Task:
    inputs: Tensors
    rows: int
    deadline: float
    enqueued: float
    traceparent: str | None
    answer: "Future[Outputs]" = field(default_factory=Future)


@dataclass
class _Batch:
    servable: Servable
    signature: str
    opened: float
    tasks: list[_Task] = field(default_factory=list)
    rows: int = 0
    closed: bool = False


class BatchScheduler:
    """One pool of threads for all queues."""

    def __init__(self, parameters: Batching, metrics: Monitoring) -> None:
        self._parameters = parameters
        self._metrics = metrics
        self._changed = threading.Condition()
        self._queues: dict[QueueKey, deque[_Batch]] = {}
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(parameters.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what is queued, then end the threads."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(
        self, servable: Servable, signature: str, inputs: Tensors, outputs: tuple[str, ...], deadline: float
    ) -> "Future[Outputs]":
        """Queue a request.

        Args:
            servable: the version that is to answer.
            signature: resolved name.
            inputs: by alias; the first axis is the batch.
            outputs: aliases asked for.
            deadline: monotonic time after which nobody waits for the answer.

        Raises:
            ServingError: the request cannot be batched, the queue is full, or the server is stopping.
        """
        rows = _count_rows(inputs)
        task = _Task(inputs, rows, deadline, time.monotonic(), tracing.traceparent())
        with self._changed:
            # Also what is refused below, as the real server does.
            self._metrics.observe(monitoring.INPUT_BATCH_SIZE, rows)
            if rows > self._parameters.max_batch_size:
                raise _invalid(f"Task size {rows} is larger than maximum input batch size {self._parameters.max_batch_size}")
            if self._stopping:
                raise ServingError(grpc.StatusCode.UNAVAILABLE, "the model server is stopping")
            queue = self._queues.setdefault((servable.name, servable.version, signature, outputs), deque())
            if not queue or not self._fits(queue[-1], servable, rows):
                if len(queue) >= self._parameters.max_enqueued_batches:
                    raise ServingError(
                        grpc.StatusCode.UNAVAILABLE,
                        "The batch scheduling queue to which this task was submitted is full; currently "
                        f"{len(queue)} batches enqueued and max_enqueued_batches is {self._parameters.max_enqueued_batches}",
                    )
                if queue:
                    queue[-1].closed = True
                queue.append(_Batch(servable, signature, task.enqueued))
            batch = queue[-1]
            batch.tasks.append(task)
            batch.rows += rows
            batch.closed = batch.rows == self._parameters.max_batch_size
            self._changed.notify()
        return task.answer

    def _fits(self, batch: _Batch, servable: Servable, rows: int) -> bool:
        # The number alone does not tell: a version may have been unloaded and loaded again, from another folder.
        return not batch.closed and batch.servable is servable and batch.rows + rows <= self._parameters.max_batch_size

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """Answer one batch. A call of its own, so that a thread without work holds on to no version."""
        batch = self._next()
        if batch is None:
            return False
        try:
            answers = self._run(batch)
        except Exception as error:  # noqa: BLE001  (the edge of a thread: whatever it is, somebody waits for it)
            # Nothing that the error holds through its frames may hold the answer: in a circle, pictures wait for the collector.
            traceback.clear_frames(error.__traceback__)
            while batch.tasks:
                batch.tasks.pop().answer.set_exception(error)
        else:
            for task, answer in zip(batch.tasks, answers, strict=True):
                task.answer.set_result(answer)
        return True

    def _next(self) -> _Batch | None:
        """Wait for a batch that is full, or has waited its time."""
        with self._changed:
            while True:
                now = time.monotonic()
                waits = []
                for key in list(self._queues):
                    queue = self._queues[key]
                    if not queue:
                        del self._queues[key]
                        continue
                    wait = queue[0].opened + self._parameters.batch_timeout_s - now
                    if queue[0].closed or wait <= 0 or self._stopping:
                        # To the end of the line: a busy queue must not starve the others.
                        self._queues[key] = self._queues.pop(key)
                        return queue.popleft()
                    waits.append(wait)
                if self._stopping:
                    return None
                self._changed.wait(min(waits, default=None))

    def _run(self, batch: _Batch) -> list[Outputs]:
        now = time.monotonic()
        for task in batch.tasks:
            task.answer.set_running_or_notify_cancel()
            waited = (now - task.enqueued) * 1e6
            self._metrics.observe(monitoring.QUEUING_LATENCY, waited, thread_pool_name=self._parameters.thread_pool_name)
            tracing.record(task.traceparent, "queue", task.enqueued, now, {})
        if all(task.deadline <= now for task in batch.tasks):
            raise ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")
        size = next((size for size in self._parameters.allowed_batch_sizes if size >= batch.rows), batch.rows)
        inputs = {alias: _join(alias, batch.tasks, size - batch.rows) for alias in batch.tasks[0].inputs}
        self._metrics.observe(monitoring.PROCESSED_BATCH_SIZE, size)
        self._metrics.observe(monitoring.PADDING_SIZE, size - batch.rows, execution_batch_size=str(size))
        started = time.monotonic()
        try:
            outputs = batch.servable.run(batch.signature, inputs)
        finally:
            # When it is over and whatever became of it, as the real server does.
            self._metrics.count(monitoring.WRAPPED_RUNS)
            ended, described = time.monotonic(), {"dermserve.batch.requests": len(batch.tasks), "dermserve.batch.rows": size}
            for task in batch.tasks:
                tracing.record(task.traceparent, "run", started, ended, described)
        if any(value.ndim == 0 for value in outputs.values()):
            raise _precondition("Batched output tensor has 0 dimensions")
        if any(value.shape[0] != size for value in outputs.values()):
            raise _precondition(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors"
            )
        starts = np.cumsum([0, *(task.rows for task in batch.tasks)])
        return [
            {alias: value[start : start + task.rows] for alias, value in outputs.items()}
            for start, task in zip(starts, batch.tasks, strict=False)
        ]


def _count_rows(inputs: Tensors) -> int:
    if not inputs:
        raise _invalid("Batching Run() must have at least one input tensor")
    if any(value.ndim == 0 for value in inputs.values()):
        raise _invalid("Batching Run() input tensors must have at least one dimension")
    sizes = {value.shape[0] for value in inputs.values()}
    if len(sizes) > 1:
        raise _invalid("Batching Run() input tensors must have equal 0th-dimension size")
    rows: int = sizes.pop()
    if rows == 0:
        raise _invalid("a request of no rows cannot be batched")
    return rows


def _join(alias: str, tasks: list[_Task], padding: int) -> npt.NDArray[Any]:
    """Rows of all tasks, and the first row so often that the batch has an allowed size."""
    parts = [task.inputs[alias] for task in tasks]
    kinds = list(dict.fromkeys(runtime_name(part.dtype) for part in parts))
    if len(kinds) > 1:
        raise ServingError(
            grpc.StatusCode.INTERNAL,
            "Tensor concat operation failed: INVALID_ARGUMENT: Cannot concatenate tensors that have different data types. "
            f"Got {kinds[0]} and {kinds[1]}.",
        )
    if len({part.shape[1:] for part in parts}) > 1:
        raise _precondition(
            f"Tensors with name '{alias}' from different tasks have different shapes and padding is turned off. "
            "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name have equal dimensions "
            "starting with the first dim."
        )
    if len(parts) == 1 and not padding:
        return parts[0]
    return np.concatenate([*parts, np.repeat(parts[0][:1], padding, axis=0)])


def _invalid(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def _precondition(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)
