"""What the embedded model server does over time: versions come and go, requests share a run, it stops in order."""

import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from tests import processes


def request_for(colour=(51, 0, 0), rows=1, **choice):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "lesion"
    if "label" in choice:
        request.model_spec.version_label = choice["label"]
    images = np.broadcast_to(np.array(colour, np.uint8), (rows, 224, 224, 3))
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.ascontiguousarray(images)))
    return request


@pytest.fixture
def base(tmp_path, make_version):
    make_version(tmp_path / "lesion", 1)
    return tmp_path / "lesion"


def wait_until(holds, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def states(rest_port):
    rows = requests.get(f"http://127.0.0.1:{rest_port}/v1/models/lesion", timeout=10).json()["model_version_status"]
    return {int(row["version"]): (row["state"], row["status"]["error_code"]) for row in rows}


def test_a_new_version_comes_under_load_without_an_error(base, tmp_path, make_version):
    make_version(tmp_path / "other", 2)
    with (
        processes.model_server(base, tmp_path, "--file_system_poll_wait_seconds=0.2", labels="") as (_, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stopped, versions = threading.Event(), []

        def keep_asking():
            while not stopped.is_set():
                versions.append(stub.Predict(request_for(), timeout=20).model_spec.version.value)

        with ThreadPoolExecutor(4) as pool:
            askers = [pool.submit(keep_asking) for _ in range(4)]
            shutil.copytree(tmp_path / "other" / "2", base / "partial-2")
            (base / "partial-2").rename(base / "2")
            wait_until(lambda: versions[-1:] == [2])
            stopped.set()
            for asker in askers:
                asker.result()

        assert set(versions) == {1, 2}
        assert states(rest_port) == {1: ("AVAILABLE", "OK"), 2: ("AVAILABLE", "OK")}


def test_a_broken_version_leaves_the_old_one_serving_and_a_higher_one_helps(base, tmp_path, make_version):
    make_version(tmp_path / "other", 3)
    with (
        processes.model_server(base, tmp_path, "--file_system_poll_wait_seconds=0.2") as (_, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        (base / "2").mkdir()
        wait_until(lambda: states(rest_port).get(2, ("", ""))[0] == "END")

        assert states(rest_port)[2] == ("END", "NOT_FOUND")
        assert stub.Predict(request_for(label="stable"), timeout=20).model_spec.version.value == 1
        (tmp_path / "other" / "3").rename(base / "3")
        wait_until(lambda: states(rest_port).get(3, ("", ""))[0] == "AVAILABLE")
        assert stub.Predict(request_for(), timeout=20).model_spec.version.value == 3


def test_labels_move_only_to_what_is_available(base, tmp_path, make_version):
    make_version(base, 2)
    with (
        processes.model_server(base, tmp_path) as (_, port, _rest),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        reload = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
        change = model_management_pb2.ReloadConfigRequest()
        config = change.config.model_config_list.config.add(name="lesion", base_path=str(base), model_platform="tensorflow")
        config.model_version_policy.latest.num_versions = 2

        config.version_labels["stable"] = 2
        reload(change, timeout=20)
        moved = predict(request_for(label="stable"), timeout=20).model_spec.version.value
        config.version_labels["stable"] = 7
        with pytest.raises(grpc.RpcError) as caught:
            reload(change, timeout=20)

        assert moved == 2
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert predict(request_for(label="stable"), timeout=20).model_spec.version.value == 2


def test_requests_share_runs_and_each_gets_its_own_answer(base, tmp_path):
    waiting = tmp_path / "batching.config"
    waiting.write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 200000 } max_enqueued_batches { value: 100 } "
        "num_batch_threads { value: 1 } allowed_batch_sizes: [ 4, 8 ]"
    )
    with (
        processes.model_server(base, tmp_path, batching=str(waiting)) as (_, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        reds = [5 * step for step in range(40)]
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda red: stub.Predict(request_for((red, 0, 0)), timeout=30), reds))
        page = requests.get(f"http://127.0.0.1:{rest_port}/monitoring/prometheus/metrics", timeout=10).text

    for red, answer in zip(reds, answers, strict=True):
        assert tf.make_ndarray(answer.outputs["probabilities"])[0, 1] == pytest.approx(red / 255, abs=1e-5)
    families = {family.name: family for family in text_string_to_metric_families(page)}
    runs = families[":tensorflow:serving:batching_session:wrapped_run_count"].samples[0].value
    assert 5 <= runs < 40
    counted = families[":tensorflow:serving:request_count"].samples[0]
    assert (counted.labels, counted.value) == ({"model_name": "lesion", "status": "OK"}, 40)


def test_a_full_queue_refuses_at_once_and_a_late_request_is_dropped(base, tmp_path):
    narrow = tmp_path / "batching.config"
    narrow.write_text(
        "max_batch_size { value: 1 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 1 } "
        "num_batch_threads { value: 1 }"
    )
    with (
        processes.model_server(base, tmp_path, "--grpc_max_threads=64", batching=str(narrow)) as (_, port, _rest),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def code(_):
            try:
                stub.Predict(request_for(), timeout=20)
            except grpc.RpcError as error:
                return error.code().name, error.details()
            return "OK", ""

        with ThreadPoolExecutor(48) as pool:
            codes = list(pool.map(code, range(300)))

    refused = {details for name, details in codes if name == "UNAVAILABLE"}
    assert {name for name, _ in codes} == {"OK", "UNAVAILABLE"}
    assert all("is full; currently 1 batches enqueued and max_enqueued_batches is 1" in details for details in refused)


def test_probes_get_what_the_real_server_says(tiny_server):
    _, rest_port = tiny_server

    def get(path):
        answer = requests.get(f"http://127.0.0.1:{rest_port}{path}", timeout=10)
        return answer.status_code, answer.text

    assert get("/v1/models/lesion")[0] == 200
    assert get("/v1/models/lesion/labels/anything")[0] == 200
    assert get("/v1/models/lesion/labels/stable/metadata")[0] == 200
    assert get("/v1/models/lesion/labels/other/metadata")[0] == 400
    assert get("/v1/models/other") == (404, '{\n    "error": "Could not find any versions of model other"\n}')
    assert get("/v1/models/lesion/versions/4")[0] == 404
    assert get("/v1/models/lesion/versions/99999999999999999999") == (400, "")
    assert get("/v1/models") == (400, '{\n    "error": "Missing model name in request."\n}')
    assert get("/v1/models/lesion:predict")[0] == 400
    assert get("/elsewhere")[0] == 404


def test_it_stops_in_order_and_lets_requests_finish(base, tmp_path):
    with (
        processes.model_server(base, tmp_path) as (program, port, _rest),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        ThreadPoolExecutor(4) as pool,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(request_for(), timeout=20)
        pending = [pool.submit(stub.Predict, request_for(rows=32), timeout=20) for _ in range(4)]
        wait_until(lambda: any(answer.running() for answer in pending))

        assert program.stop() == 0
        outcomes = {"UNAVAILABLE" if answer.exception() else "OK" for answer in pending}
    assert outcomes <= {"OK", "UNAVAILABLE"}


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
def test_a_wrong_start_ends_with_255_and_the_real_text(flags, text):
    command = [sys.executable, "-m", "serving.embedded", *flags]

    result = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 255
    assert f"Failed to start server. Error: {text}" in result.stdout


def test_a_version_whose_warm_up_fails_does_not_become_available(base):
    (base / "1" / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(base / "1" / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(b"\x00not a record")
    command = [sys.executable, "-m", "serving.embedded", "--model_name=lesion", f"--model_base_path={base}", "--port=0"]

    result = subprocess.run(
        [*command, "--max_num_load_retries=0"], cwd=processes.ROOT, capture_output=True, text=True, timeout=90, check=False
    )

    assert result.returncode == 255
    assert "1 servable(s) did not become available: {{{name: lesion version: 1} due to error: " in result.stdout
    assert "Failed to parse warmup record" in result.stdout
