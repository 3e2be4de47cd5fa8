"""What a model server says of a version that does not load, and of a start that cannot succeed.

The servers are started here, on broken folders: the embedded one, and tensorflow_model_server where it is on the PATH. These
tests do not run against TFS_ADDRESS alone. What is expected was read in the sources of TensorFlow Serving 2.20.0
(saved_model_warmup_util.cc, load_servables_fast.cc, server.cc) or observed on it.
"""

import shutil
import subprocess

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from tests import processes
from tests.processes import wait_until

IMAGE = np.full((1, 224, 224, 3), 51, np.uint8)
DECIDED = ("AVAILABLE", "END")


def no_folder(version):
    shutil.rmtree(version)
    version.write_text("")


def no_graph(version):
    (version / "saved_model.pb").unlink()


def cut_graph(version):
    graph = version / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-1000])


def warm_up_file(version):
    return version / "assets.extra" / "tf_serving_warmup_requests"


def no_record_file(version):
    warm_up_file(version).write_bytes(b"no TFRecord " * 9)


def records(*contents):
    def write(version):
        with tf.io.TFRecordWriter(str(warm_up_file(version))) as writer:
            for content in contents:
                writer.write(content)

    return write


def request_record(images=IMAGE, **spec):
    request = predict_pb2.PredictRequest(model_spec=spec, inputs={"images": tf.make_tensor_proto(images)})
    return prediction_log_pb2.PredictionLog(predict_log={"request": request}).SerializeToString()


# Version -> what is done to a copy of version 1. These load; the model that a record names does not matter.
GOOD = {
    2: records(*[b""] * 1000),
    3: records(request_record(name="other", version={"value": 99})),
}
# Version -> what is done to a copy of version 1, code and text of its status; neither where each server has words of its own.
BROKEN = {
    4: (no_folder, "FAILED_PRECONDITION", "resources to load servable {name: lesion version: 4}: BASE/4; Not a directory"),
    5: (no_graph, "NOT_FOUND", "Could not find SavedModel .pb or .pbtxt at supplied export directory path: BASE/5"),
    6: (cut_graph, None, ""),
    7: (
        records(request_record(IMAGE.astype(np.float32))),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be uint8 but float is provided",
    ),
    8: (
        records(request_record(), request_record(signature_name="nothing")),
        "FAILED_PRECONDITION",
        'Serving signature key "nothing" not found.',
    ),
    9: (
        records(prediction_log_pb2.PredictionLog(session_run_log={}).SerializeToString()),
        "UNIMPLEMENTED",
        "Unsupported log_type for warmup: 5",
    ),
    10: (
        records(b"no record"),
        "INVALID_ARGUMENT",
        "Failed to parse warmup record: no record from BASE/10/assets.extra/tf_serving_warmup_requests",
    ),
    11: (no_record_file, "DATA_LOSS", ". Please verify your warmup data is in TFRecord format."),
    12: (
        records(*[b""] * 1001),
        "INVALID_ARGUMENT",
        "Number of warmup records exceeds the maximum (1000) at BASE/12/assets.extra/tf_serving_warmup_requests",
    ),
}


@pytest.fixture(scope="module", params=list(processes.MODEL_SERVERS))
def served(request, tiny_base, tmp_path_factory):
    """A server that was given all of them while it served version 1: base path, gRPC port, statuses by version."""
    folder = tmp_path_factory.mktemp("broken")
    base = shutil.copytree(tiny_base, folder / "lesion")
    config = folder / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "lesion" base_path: "{base}" model_platform: "tensorflow" '
        'model_version_policy { all {} } version_labels { key: "stable" value: 1 } } }'
    )
    with processes.model_server_from(config, folder, program=processes.MODEL_SERVERS[request.param]) as (_, port, rest_port):

        def statuses():
            rows = requests.get(f"http://127.0.0.1:{rest_port}/v1/models/lesion", timeout=10).json()["model_version_status"]
            return {int(row["version"]): row for row in rows}

        for version, change in (GOOD | {version: row[0] for version, row in BROKEN.items()}).items():
            copy = shutil.copytree(tiny_base / "1", folder / "copy")
            change(copy)
            copy.rename(base / str(version))
        wanted = {1, *GOOD, *BROKEN}
        wait_until(lambda: {version for version, row in statuses().items() if row["state"] in DECIDED} == wanted)
        yield base, port, statuses()


@pytest.mark.parametrize("version", GOOD)
def test_a_version_loads(served, version):
    *_, statuses = served

    assert statuses[version]["state"] == "AVAILABLE"
    assert statuses[version]["status"] == {"error_code": "OK", "error_message": ""}


@pytest.mark.parametrize("version", BROKEN)
def test_a_broken_version_ends_and_says_why(served, version):
    base, _, statuses = served
    _, code, text = BROKEN[version]

    status = statuses[version]["status"]
    assert statuses[version]["state"] == "END"
    assert status["error_code"] != "OK"
    assert code in (status["error_code"], None)
    assert status["error_message"]
    assert text.replace("BASE", str(base)) in status["error_message"]


@pytest.mark.parametrize(("choice", "version"), [({}, 3), ({"version_label": "stable"}, 1), ({"version": {"value": 2}}, 2)])
def test_broken_versions_leave_the_good_ones_serving(served, choice, version):
    _, port, _ = served
    request = predict_pb2.PredictRequest(
        model_spec=model_pb2.ModelSpec(name="lesion", **choice), inputs={"images": tf.make_tensor_proto(IMAGE)}
    )

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)

    assert response.model_spec.version.value == version


@pytest.fixture(params=list(processes.MODEL_SERVERS))
def start(request):
    """Run a server that is to end by itself: its exit code and what it printed."""

    def run(*flags):
        result = subprocess.run(
            [*processes.MODEL_SERVERS[request.param], f"--port={processes.free_port()}", *flags],
            cwd=processes.ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return result.returncode, result.stdout

    return run


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (
            ["--model_base_path=/x", "--batching_parameters_file=/y"],
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true.",
        ),
    ],
)
def test_flags_that_contradict_each_other_end_the_start(start, flags, text):
    code, output = start(*flags)

    assert code == 255
    assert f"Failed to start server. Error: INVALID_ARGUMENT: {text}\n" in output


def test_a_model_without_a_version_that_loads_ends_the_start(start, tmp_path, tiny_base):
    version = shutil.copytree(tiny_base / "1", tmp_path / "lesion" / "1")
    records(b"no record")(version)

    code, output = start("--model_name=lesion", f"--model_base_path={version.parent}", "--max_num_load_retries=0")

    assert code == 255
    assert (
        "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: {{{name: lesion version: 1} due to "
        f"error: INVALID_ARGUMENT: Failed to parse warmup record: no record from {warm_up_file(version)}}}, }}\n"
    ) in output
