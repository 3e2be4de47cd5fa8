"""The one error of the model server: a gRPC code and the text TensorFlow Serving would give."""

from typing import Final, NoReturn

import grpc

_MAX_BYTES: Final = 1024

HTTP_STATUS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""Those that the REST paths we answer can give; 500 otherwise."""


class ServingError(Exception):
    """A request or a load that fails.

    Attributes:
        code: gRPC status.
        message: the whole text; gRPC gets it cut, REST does not.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


def abort(context: grpc.ServicerContext, error: ServingError) -> NoReturn:
    """End a call as TensorFlow Serving does: a text over 1,024 bytes is cut and marked."""
    encoded = error.message.encode()
    cut = encoded[:_MAX_BYTES].decode(errors="ignore") + "...TRUNCATED"
    context.abort(error.code, cut if len(encoded) > _MAX_BYTES else error.message)
    raise AssertionError("abort returned")  # its stub does not say that it always raises
