import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.contract import ALLOWED_BATCH_SIZES, MODEL_NAME, STABLE_LABEL
from serving.embedded.config import read_batching, read_metrics_path, read_model_configs
from serving.embedded.flags import StartupError, parse_flags
from serving.embedded.status import ServingError
from serving.embedded.versions import find_versions
from tests.processes import ROOT

CONFIG = ROOT / "serving" / "config"


@pytest.mark.parametrize(("name", "allowed"), [("batching.config", ()), ("batching.gpu.config", ALLOWED_BATCH_SIZES)])
def test_batch_sizes_are_those_that_are_warmed_up(name, allowed):
    flags = parse_flags(["--model_base_path=/x", "--enable_batching=true", f"--batching_parameters_file={CONFIG / name}"])

    batching = read_batching(flags, processors=2)

    assert batching.max_batch_size == ALLOWED_BATCH_SIZES[-1]
    assert batching.allowed_batch_sizes == allowed


def test_the_model_and_its_label_are_the_contracts():
    message = text_format.Parse((CONFIG / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())

    (config,) = message.model_config_list.config
    assert config.name == MODEL_NAME
    assert STABLE_LABEL in config.version_labels


def test_metrics_stand_at_upstreams_path():
    flags = parse_flags(["--model_base_path=/x", f"--monitoring_config_file={CONFIG / 'monitoring.config'}"])

    assert read_metrics_path(flags) == "/monitoring/prometheus/metrics"


@pytest.mark.parametrize(("flag", "value"), [("", True), ("=true", True), ("=false", False)])
def test_a_flag_without_a_value_is_true(flag, value):
    assert parse_flags([f"--enable_batching{flag}", "--model_base_path=/x"]).enable_batching is value


@pytest.mark.parametrize("content", [b"model_config_lists { }", b"\xff"])
@pytest.mark.parametrize(
    ("flag", "read"),
    [
        ("model_config_file", read_model_configs),
        ("batching_parameters_file", lambda flags: read_batching(flags, processors=2)),
        ("monitoring_config_file", read_metrics_path),
    ],
)
def test_a_file_with_a_mistake_keeps_the_server_from_starting(tmp_path, content, flag, read):
    (tmp_path / "file").write_bytes(content)
    flags = parse_flags(["--model_base_path=/x", "--enable_batching=true", f"--{flag}={tmp_path / 'file'}"])

    with pytest.raises(StartupError) as caught:
        read(flags)

    assert str(caught.value).startswith(f"Invalid protobuf file: '{tmp_path / 'file'}'")


@pytest.mark.parametrize("switch", ["pad_variable_length_inputs: true", "enable_large_batch_splitting { value: true }"])
def test_what_the_embedded_server_lacks_is_refused_rather_than_ignored(tmp_path, switch):
    (tmp_path / "file").write_text(f"{switch} max_execution_batch_size {{ value: 8 }}")
    flags = parse_flags(["--model_base_path=/x", "--enable_batching", f"--batching_parameters_file={tmp_path / 'file'}"])

    with pytest.raises(StartupError, match=f"the embedded model server has no {switch.split(':')[0].split()[0]}"):
        read_batching(flags, processors=2)


def test_a_relative_base_path_is_refused():
    with pytest.raises(ServingError) as caught:
        read_model_configs(parse_flags(["--model_name=lesion", "--model_base_path=models"]))

    text = "Expected model lesion to have an absolute path or URI; got base_path()=models"
    assert str(caught.value) == f"INVALID_ARGUMENT: {text}"


def test_versions_are_the_numbers_of_64_bits(tmp_path):
    names = ("1", "0007", "+8", "-9", str(2**63 - 1), str(-(2**63)), str(2**63), str(-(2**63) - 1), "20250101120000123456", "x")
    for name in names:
        (tmp_path / name).mkdir()

    assert set(find_versions(tmp_path)) == {1, 7, 8, -9, 2**63 - 1, -(2**63)}
