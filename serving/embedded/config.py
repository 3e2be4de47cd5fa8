"""Configuration files of TensorFlow Serving, read as it reads them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf import text_format
from google.protobuf.message import Message
from tensorflow_serving.config import model_server_config_pb2
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig

from serving.embedded import settings_pb2
from serving.embedded.flags import Flags, StartupError
from serving.embedded.status import ServingError

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"
PLATFORM = "tensorflow"
_Message = TypeVar("_Message", bound=Message)


@dataclass(frozen=True)
class ModelConfig:
    """One model: where its versions lie, which are wanted, what they are called."""

    name: str
    base_path: Path
    policy: FileSystemStoragePathSourceConfig.ServableVersionPolicy
    labels: dict[str, int]


@dataclass(frozen=True)
class Batching:
    """BatchingParameters with TensorFlow Serving's defaults filled in."""

    max_batch_size: int
    batch_timeout_s: float
    max_enqueued_batches: int
    num_batch_threads: int
    thread_pool_name: str
    allowed_batch_sizes: tuple[int, ...]


def read_model_configs(flags: Flags) -> list[ModelConfig]:
    """Models of --model_config_file, or the one of --model_name and --model_base_path.

    Raises:
        ServingError: as a reload with the same list would give.
        StartupError, OSError: the file cannot be read.
    """
    message = model_server_config_pb2.ModelServerConfig()
    if flags.model_config_file is None:
        message.model_config_list.config.add(name=flags.model_name, base_path=flags.model_base_path, model_platform=PLATFORM)
    else:
        _read(flags.model_config_file, message)
    return validate_models(message.model_config_list.config)


def validate_models(configs: Sequence[model_server_config_pb2.ModelConfig], served: Collection[str] = ()) -> list[ModelConfig]:
    """Check a list of models.

    Args:
        configs: the list.
        served: names of the models that the server has now, all of the one platform.

    Raises:
        ServingError: INVALID_ARGUMENT with the real server's text.
    """
    models: dict[str, ModelConfig] = {}
    for config in configs:
        if config.name in models:
            raise _invalid(f"Illegal to list model {config.name} multiple times in config list")
        if not config.base_path.startswith("/"):
            raise _invalid(f"Expected model {config.name} to have an absolute path or URI; got base_path()={config.base_path}")
        if not config.model_platform:
            raise _invalid(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
                f"model name is {config.name}"
            )
        if config.model_platform != PLATFORM and config.name in served:
            raise _invalid(
                f"Illegal to change a model's platform. For model {config.name} platform was {PLATFORM} and new platform "
                f"requested is {config.model_platform}"
            )
        if config.model_platform != PLATFORM:
            raise _invalid(f"Model {config.name} requests unsupported platform {config.model_platform}")
        labels = dict(config.version_labels)
        models[config.name] = ModelConfig(config.name, Path(config.base_path), config.model_version_policy, labels)
    return list(models.values())


def read_batching(flags: Flags, processors: int) -> Batching | None:
    """Batching parameters, or None when batching is off.

    Raises:
        StartupError: the file has a mistake, asks for what this server lacks, or contradicts itself.
        OSError: the file cannot be read.
    """
    if not flags.enable_batching:
        return None
    message = settings_pb2.BatchingParameters()
    if flags.batching_parameters_file:
        _read(flags.batching_parameters_file, message)
    # They change answers, so that passing over them in silence would be wrong.
    asked = {
        "pad_variable_length_inputs": message.pad_variable_length_inputs,
        "enable_large_batch_splitting": message.enable_large_batch_splitting.value,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise StartupError(f"the embedded model server has no {name}")
    largest = message.max_batch_size.value if message.HasField("max_batch_size") else 1000
    allowed = tuple(message.allowed_batch_sizes)
    if allowed and allowed[-1] != largest:
        raise StartupError(
            f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {allowed[-1]}; expected {largest}"
        )
    return Batching(
        max_batch_size=largest,
        batch_timeout_s=message.batch_timeout_micros.value / 1e6,
        max_enqueued_batches=message.max_enqueued_batches.value if message.HasField("max_enqueued_batches") else 10,
        num_batch_threads=message.num_batch_threads.value if message.HasField("num_batch_threads") else processors,
        thread_pool_name=message.thread_pool_name.value or "model_server_batch_threads",
        allowed_batch_sizes=allowed,
    )


def read_metrics_path(flags: Flags) -> str | None:
    """Path of the Prometheus page, or None when it is off.

    Raises:
        StartupError, OSError: the file cannot be read.
    """
    if flags.monitoring_config_file is None:
        return None
    message = _read(flags.monitoring_config_file, settings_pb2.MonitoringConfig())
    if not message.prometheus_config.enable:
        return None
    return message.prometheus_config.path or DEFAULT_METRICS_PATH


def read_credentials(flags: Flags) -> grpc.ServerCredentials | None:
    """Of --ssl_config_file, whose texts are PEM; None for plain text.

    Raises:
        StartupError, OSError: the file cannot be read.
    """
    if flags.ssl_config_file is None:
        return None
    message = _read(flags.ssl_config_file, settings_pb2.SSLConfig())
    if message.client_verify and not message.custom_ca:
        raise StartupError(f"{flags.ssl_config_file}: client_verify needs custom_ca")
    return grpc.ssl_server_credentials(
        [(message.server_key.encode(), message.server_cert.encode())],
        root_certificates=message.custom_ca.encode() or None,
        require_client_auth=message.client_verify,
    )


def _read(file: Path, message: _Message) -> _Message:
    try:
        return text_format.Parse(file.read_text(), message)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise StartupError(f"Invalid protobuf file: '{file}': {error}") from error


def _invalid(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)
