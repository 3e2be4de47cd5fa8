"""One running model server, as whoever operates it sees it: its versions, its configuration, who answers to a label."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import grpc

from serving.channel import PREDICT_METHOD, metadata_request, open_channel, read_metadata_response
from serving.contract import LABELS, MODEL_NAME
from serving.metadata import MetadataError, ModelMetadata
from serving.models_config import Deployment
from serving.release import ReleaseError
from serving.wire import management_pb2 as management
from serving.wire import prediction_pb2 as wire

STATUS_METHOD: Final = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD_METHOD: Final = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"

CALL_TIMEOUT_S: Final = 10.0
"""None of these calls waits for a load: a reload waits for new models only, and ours is never new."""

_MAY_PASS: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


class ModelServerError(ReleaseError):
    """The server cannot be reached, or refuses.

    Attributes:
        code: of the call, None where the answer itself is wrong.
    """

    def __init__(self, text: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(text)
        self.code = code

    @property
    def may_pass(self) -> bool:
        """Whether the same call may be answered a moment later."""
        return self.code in _MAY_PASS


@dataclass(frozen=True)
class VersionState:
    """What a server says of one version: a state such as AVAILABLE, and the error it ended with, if any."""

    state: str
    error: str = ""

    @property
    def is_available(self) -> bool:
        """It answers."""
        return self.state == "AVAILABLE"

    @property
    def is_live(self) -> bool:
        """It is loaded, on its way there or on its way out."""
        return self.state not in ("END", "UNKNOWN")


class ModelServer:
    """A gRPC channel to one server."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.address = address
        self._channel = open_channel(address, credentials)

    def __enter__(self) -> Self:
        """Nothing is sent yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the channel."""
        self._channel.close()

    def versions(self) -> dict[int, VersionState]:
        """Every version it knows of, unloaded ones included; none when it knows of none.

        Raises:
            ModelServerError: as named there.
        """
        request = management.GetModelStatusRequest(model_spec=wire.ModelSpec(name=MODEL_NAME))
        try:
            response = self._call(STATUS_METHOD, request, management.GetModelStatusResponse.FromString)
        except ModelServerError as error:
            if error.code == grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        return {
            status.version: VersionState(
                management.ModelVersionStatus.State.Name(status.state),
                status.status.error_message if status.status.error_code else "",
            )
            for status in response.model_version_status
        }

    def live(self) -> frozenset[int]:
        """Versions that take memory: see `VersionState.is_live`.

        Raises:
            ModelServerError: as named there.
        """
        return frozenset(version for version, state in self.versions().items() if state.is_live)

    def labels(self) -> dict[str, int]:
        """Which version answers to each of our labels; without those that it does not know or cannot answer.

        Raises:
            ModelServerError: as named there.
        """
        found = {}
        for label in LABELS:
            try:
                found[label] = self.metadata(label=label).version
            except ModelServerError as error:
                # The last is of a server that was never given any label.
                known = error.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
                if not known and "Model labels does not init yet" not in str(error):
                    raise
        return found

    def reload(self, deployment: Deployment) -> None:
        """Replace its configuration. Labels hold when this returns; versions follow.

        Raises:
            ModelServerError: as named there. What it remembers may then differ from what it serves: send the old one again.
        """
        request = management.ReloadConfigRequest(config=deployment.to_message())
        response = self._call(RELOAD_METHOD, request, management.ReloadConfigResponse.FromString)
        if response.status.error_code:
            raise ModelServerError(f"{self.address}: {response.status.error_message}")

    def metadata(self, *, label: str | None = None, version: int | None = None) -> ModelMetadata:
        """Metadata of the version that answers to a label, or of a version, as it carries them itself.

        Raises:
            ModelServerError: as named there, and when the document is not that of the version that gave it.
        """
        response = self._call(PREDICT_METHOD, metadata_request(label=label, version=version), wire.PredictResponse.FromString)
        try:
            return read_metadata_response(response)
        except MetadataError as error:
            raise ModelServerError(f"{self.address}: {error}") from error

    def _call(self, method: str, request: Any, parse: Callable[[bytes], Any]) -> Any:
        call = self._channel.unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=parse
        )
        try:
            return call(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise ModelServerError(f"{self.address}: {error.code().name}: {error.details()}", error.code()) from error
