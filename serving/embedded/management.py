"""ModelService: GetModelStatus and HandleReloadConfigRequest."""

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc

from serving.embedded.catalogue import Catalogue
from serving.embedded.config import validate_models
from serving.embedded.status import ServingError, abort

_LOOK_UP_S = 1.0
"""How often a reload that waits for a new model looks whether its caller is still there; it holds one of the call threads."""


class ModelService(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    """What operators and probes call."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def GetModelStatus(  # noqa: N802  (gRPC's name)
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """States of all versions, or of the one asked for by number; a label is ignored, as by the real server."""
        try:
            if not request.HasField("model_spec"):
                raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
            has_version = request.model_spec.WhichOneof("version_choice") == "version"
            version = request.model_spec.version.value if has_version else None
            return describe_versions(self._catalogue, request.model_spec.name, version)
        except ServingError as error:
            abort(context, error)

    def HandleReloadConfigRequest(  # noqa: N802  (gRPC's name)
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serve another list of models, or the same with other labels or policies; waits for new models only."""
        try:
            if request.config.WhichOneof("config") != "model_config_list":
                raise ServingError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                    "supported",
                )
            configs = validate_models(request.config.model_config_list.config, self._catalogue.names())
            new = self._catalogue.configure(configs)
            while not self._catalogue.wait_for(new, _LOOK_UP_S, "model(s)"):
                if not context.is_active():
                    raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        except ServingError as error:
            abort(context, error)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        return response


def describe_versions(catalogue: Catalogue, name: str, version: int | None) -> get_model_status_pb2.GetModelStatusResponse:
    """The answer of GetModelStatus, the highest version first.

    Raises:
        ServingError: NOT_FOUND.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    for number, record in catalogue.statuses(name, version):
        status = response.model_version_status.add(version=number, state=record.state)
        # Set even when all is well: the real server's answer has it.
        status.status.error_code = record.error.code.value[0] if record.error else 0
        status.status.error_message = record.error.message if record.error else ""
    return response
