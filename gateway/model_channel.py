"""A gRPC channel to a model server, whichever protocol it speaks: one retry within the deadline, statuses as domain errors."""

import time
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from gateway.errors import (
    InvalidModelAnswer,
    ModelServerOverloaded,
    ModelServerTimeout,
    ModelServerUnavailable,
    PredictionError,
)
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

Answer = TypeVar("Answer", bound=Message)


class ModelChannel:
    """Make one in each process, after it was forked: gRPC does not survive a fork."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        """Open the channel. Nothing is sent yet.

        Args:
            target: host:port or dns:///name:port.
            credentials: of TLS; None for plain text.
        """
        self._channel = open_channel(target, credentials, CHANNEL_OPTIONS)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def method(self, path: str, answer: type[Answer]) -> Callable[[Message, float], Answer]:
        """A method of the server: request, deadline in seconds -> answer.

        It makes one call, and one retry when the server could not be reached and there is time left. It raises
        gateway.errors.PredictionError.

        Args:
            path: /package.Service/Method.
            answer: its message.
        """
        send: Callable[..., Answer] = self._channel.unary_unary(
            path, request_serializer=lambda request: request.SerializeToString(), response_deserializer=answer.FromString
        )

        def call(request: Message, timeout_s: float) -> Answer:
            deadline = time.monotonic() + timeout_s
            try:
                return send(request, timeout=timeout_s)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or _is_queue_full(error):
                    _raise_mapped(error)
                if not self._reconnect(deadline - time.monotonic()):
                    _raise_mapped(error)
            try:
                return send(request, timeout=max(deadline - time.monotonic(), 0.0))
            except grpc.RpcError as error:
                _raise_mapped(error)

        return call

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


def _is_queue_full(error: grpc.RpcError) -> bool:
    return any(text in (error.details() or "") for text in _QUEUE_FULL)


def _raise_mapped(error: grpc.RpcError) -> NoReturn:
    if _is_queue_full(error):
        raise ModelServerOverloaded(error.details()) from error
    raise _ERRORS.get(error.code(), InvalidModelAnswer)(f"{error.code().name}: {error.details()}") from error
