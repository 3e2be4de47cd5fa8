"""A gRPC channel to a model server, whichever protocol it speaks: statuses as domain errors, one retry within the deadline.

Retries have a budget and calls a circuit breaker, so that a server that is ill is neither hit twice as hard nor waited for.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from gateway import deadline, metrics
from gateway.breaker import Breaker
from gateway.errors import (
    InvalidModelAnswer,
    ModelServerOverloaded,
    ModelServerTimeout,
    ModelServerUnavailable,
    PredictionError,
)
from serving import tracing
from serving.channel import open_channel

CHANNEL_OPTIONS: Final = (
    # A headless Service gives an address for each server: spread over all, and follow them as they come and go.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    # A server that died without a word is noticed within half a minute even when nobody calls.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # After a restart of the server the next request shall not wait for the default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_ERRORS: Final[dict[grpc.StatusCode, type[PredictionError]]] = {
    grpc.StatusCode.UNAVAILABLE: ModelServerUnavailable,
    grpc.StatusCode.NOT_FOUND: ModelServerUnavailable,
    grpc.StatusCode.CANCELLED: ModelServerUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: ModelServerTimeout,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ModelServerOverloaded,
}
"""Any other code means that the two sides disagree on the contract."""

_QUEUE_FULL: Final = ("queue to which this task was submitted is full", "Exceeds maximum queue size")
"""TensorFlow Serving and Triton say it as UNAVAILABLE, the code of a server that is away; only the text tells them apart."""

_RECONNECT_WAIT_S: Final = 1.5
"""Before the retry. Longer than the longest back-off (gRPC adds up to a fifth at random), in which every call fails at once."""

RETRY_SHARE: Final = 0.1
"""Of calls that may be repeated (Site Reliability Engineering, "Handling Overload"): an outage costs a server a tenth more."""

RETRY_BURST: Final = 10
"""Repeated calls that a quiet channel has saved up: for those under way to a replica that dies, about one for each thread."""

Answer = TypeVar("Answer", bound=Message)


class RetryBudget:
    """Token bucket, as in gRPC's retry throttling (proposal A6), but filled by every call: a tenth of a token each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = float(RETRY_BURST)

    def earn(self) -> None:
        """A call is made."""
        with self._lock:
            self._tokens = min(self._tokens + RETRY_SHARE, RETRY_BURST)

    def spend(self) -> bool:
        """Whether a call may be repeated."""
        with self._lock:
            may_retry = self._tokens >= 1
            self._tokens -= may_retry
            return may_retry


class ModelChannel:
    """Make one in each process, after it was forked: gRPC does not survive a fork."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None, name: str) -> None:
        """Open the channel. Nothing is sent yet.

        Args:
            target: host:port or dns:///name:port.
            credentials: of TLS; None for plain text.
            name: in the metrics, one of few.
        """
        self._channel = open_channel(target, credentials, CHANNEL_OPTIONS)
        self._name = name
        self._breaker = Breaker(name)
        self._budget = RetryBudget()
        for result in ("sent", "refused"):
            metrics.RETRIES.labels(name, result)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def method(self, path: str, answer: type[Answer], *, is_probe: bool = False) -> Callable[[Message, float], Answer]:
        """A method of the server: request, timeout in seconds -> answer.

        It makes one call, and one retry when the server could not be reached and there is time left: of the timeout, and of the
        request that it is made for (`gateway.deadline`). It raises gateway.errors.PredictionError.

        Args:
            path: /package.Service/Method.
            answer: its message.
            is_probe: asked to see how the server is: past the circuit breaker, without a say in it, and on no budget.
        """
        send: Callable[..., Answer] = _traced(
            path,
            self._channel.unary_unary(
                path, request_serializer=lambda request: request.SerializeToString(), response_deserializer=answer.FromString
            ),
        )

        def probe(request: Message, timeout_s: float) -> Answer:
            try:
                return self._send(send, request, _time_left_s(timeout_s), lambda: True)
            except grpc.RpcError as error:
                _raise_mapped(error)

        def call(request: Message, timeout_s: float) -> Answer:
            left_s = _time_left_s(timeout_s)
            begun = self._breaker.begin()
            is_answered: bool | None = None
            self._budget.earn()
            try:
                response = self._send(send, request, left_s, self._may_retry)
                is_answered = True
            except grpc.RpcError as error:
                is_answered = _is_answered(error, is_shortened=left_s < timeout_s)
                _raise_mapped(error)
            finally:
                self._breaker.end(begun, is_answered)
            return response

        return probe if is_probe else call

    def _send(self, send: Callable[..., Answer], request: Message, timeout_s: float, may_retry: Callable[[], bool]) -> Answer:
        """Raises grpc.RpcError."""
        end_s = time.monotonic() + timeout_s
        try:
            return send(request, timeout=timeout_s)
        except grpc.RpcError as error:
            is_away = error.code() == grpc.StatusCode.UNAVAILABLE and not _is_queue_full(error)
            if not is_away or not self._reconnect(end_s - time.monotonic()) or not may_retry():
                raise
        return send(request, timeout=max(end_s - time.monotonic(), 0.0))

    def _may_retry(self) -> bool:
        may_retry = self._budget.spend()
        metrics.RETRIES.labels(self._name, "sent" if may_retry else "refused").inc()
        return may_retry

    def _reconnect(self, remaining_s: float) -> bool:
        """Whether a server is connected, or comes back soon enough. Each process has its own channel and its own back-off."""
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=min(_RECONNECT_WAIT_S, max(remaining_s, 0.0)))
        except grpc.FutureTimeoutError:
            return False
        finally:
            ready.cancel()
        return True


def _traced(path: str, send: Callable[..., Answer]) -> Callable[..., Answer]:
    """Each attempt is a span, and the parent of what the server makes of it."""

    def send_traced(request: Message, timeout: float) -> Answer:
        with tracing.call(path.removeprefix("/")):
            header = tracing.traceparent()
            try:
                return send(request, timeout=timeout, metadata=((tracing.TRACEPARENT, header),) if header else None)
            except grpc.RpcError as error:
                tracing.describe(None, {"rpc.grpc.status_code": error.code().value[0]}, is_error=True)
                raise

    return send_traced


def _time_left_s(timeout_s: float) -> float:
    left_s = deadline.remaining_s(timeout_s)
    if not left_s:
        raise ModelServerTimeout("the request's time was over before the call")
    return left_s


def _is_answered(error: grpc.RpcError, *, is_shortened: bool) -> bool | None:
    """Whether the server is there, for the circuit breaker. A call that got less than its time does not tell."""
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return None if is_shortened else False
    return error.code() != grpc.StatusCode.UNAVAILABLE or _is_queue_full(error)


def _is_queue_full(error: grpc.RpcError) -> bool:
    return any(text in (error.details() or "") for text in _QUEUE_FULL)


def _raise_mapped(error: grpc.RpcError) -> NoReturn:
    if _is_queue_full(error):
        raise ModelServerOverloaded(error.details()) from error
    raise _ERRORS.get(error.code(), InvalidModelAnswer)(f"{error.code().name}: {error.details()}") from error
