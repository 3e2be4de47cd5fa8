from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.contract import ALLOWED_BATCH_SIZES, MODEL_NAME, STABLE_LABEL
from serving.embedded.config import read_batching, read_metrics_path
from serving.embedded.flags import parse_flags
from tests.processes import ROOT

CONFIG = ROOT / "serving" / "config"


def test_batch_sizes_are_those_that_are_warmed_up():
    flags = parse_flags(
        ["--model_base_path=/x", "--enable_batching=true", f"--batching_parameters_file={CONFIG / 'batching.config'}"]
    )

    batching = read_batching(flags, processors=2)

    assert batching.allowed_batch_sizes == ALLOWED_BATCH_SIZES
    assert batching.max_batch_size == ALLOWED_BATCH_SIZES[-1]


def test_the_model_and_its_label_are_the_contracts():
    message = text_format.Parse((CONFIG / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())

    (config,) = message.model_config_list.config
    assert config.name == MODEL_NAME
    assert STABLE_LABEL in config.version_labels


def test_metrics_stand_at_upstreams_path():
    flags = parse_flags(["--model_base_path=/x", f"--monitoring_config_file={CONFIG / 'monitoring.config'}"])

    assert read_metrics_path(flags) == "/monitoring/prometheus/metrics"
