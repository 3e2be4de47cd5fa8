"""What the embedded model server does over time: versions come and go, requests share a run, it stops in order."""

import errno
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from tests import processes


def request_for(colour=(51, 0, 0), rows=1, name="lesion", label=None):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    if label:
        request.model_spec.version_label = label
    images = np.broadcast_to(np.array(colour, np.uint8), (rows, 224, 224, 3))
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.ascontiguousarray(images)))
    return request


@pytest.fixture
def base(tmp_path, tiny_base):
    return shutil.copytree(tiny_base, tmp_path / "lesion")


class Timer(tf.Module):
    """Answers when the longest wait of its batch is over, on any machine; two signatures, so two queues."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64, "seconds")])
    def wait(self, seconds):
        end = tf.timestamp() + tf.reduce_max(seconds)
        ended = tf.while_loop(lambda now: now < end, lambda now: (tf.timestamp(),), [tf.timestamp()])
        return {"seconds": seconds + 0 * ended[0]}


@pytest.fixture(scope="module")
def timer_base(tmp_path_factory):
    base = tmp_path_factory.mktemp("timer")
    timer = Timer()
    tf.saved_model.save(timer, str(base / "1"), signatures={"serving_default": timer.wait, "other": timer.wait})
    return base


@contextmanager
def timer_server(base, folder, *flags):
    with (
        processes.model_server(base, folder, *flags, labels="") as (_, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict

        def wait(seconds, signature="", timeout=20):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "lesion"
            request.model_spec.signature_name = signature
            request.inputs["seconds"].CopyFrom(tf.make_tensor_proto(np.array([seconds])))
            return predict.future(request, timeout=timeout)

        yield wait, rest_port


def write_warm_up(version, *records):
    (version / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(version / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for record in records:
            writer.write(record)


def refuses(port):
    """Not merely silent, as a port is whose program no longer looks."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def total(rest_port, name):
    """Sum over all series of a counter, or of the counts of a histogram; 0 while there is none."""
    page = requests.get(f"http://127.0.0.1:{rest_port}/monitoring/prometheus/metrics", timeout=10).text
    # The parser, not the server, appends _total to counters.
    names = {f":tensorflow:serving:{name}", f":tensorflow:serving:{name}_total"}
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name in names)


def wait_until(holds, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def make_copy(version, target):
    return shutil.copytree(version, target)


def reload(channel, base, timeout=20, latest=2, **labels_and_models):
    """`stable=2` gives lesion's version 2 that label, `twin=FOLDER` adds a model of that name."""
    request = model_management_pb2.ReloadConfigRequest()
    configs = request.config.model_config_list.config
    lesion = configs.add(name="lesion", base_path=str(base), model_platform="tensorflow")
    lesion.model_version_policy.latest.num_versions = latest
    for name, value in labels_and_models.items():
        if isinstance(value, int):
            lesion.version_labels[name] = value
        else:
            configs.add(name=name, base_path=str(value), model_platform="tensorflow")
    model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=timeout)


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def server_process(base, folder, *flags):
    """One that need not come up."""
    command = [sys.executable, "-m", "serving.embedded", "--port=0", "--model_name=lesion", f"--model_base_path={base}"]
    return processes.running([*command, *flags], folder / "model-server.log")


def states(rest_port):
    rows = requests.get(f"http://127.0.0.1:{rest_port}/v1/models/lesion", timeout=10).json()["model_version_status"]
    return {int(row["version"]): (row["state"], row["status"]["error_code"]) for row in rows}


def test_a_new_version_takes_over_under_load_without_an_error(base, tmp_path):
    make_copy(base / "1", tmp_path / "2")
    with (
        processes.model_server(base, tmp_path, "--file_system_poll_wait_seconds=0.2", labels="") as (_, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        reload(channel, base, latest=1)
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        stopped, versions = threading.Event(), []

        def keep_asking():
            while not stopped.is_set():
                versions.append(predict(request_for(), timeout=20).model_spec.version.value)

        with ThreadPoolExecutor(4) as pool:
            askers = [pool.submit(keep_asking) for _ in range(4)]
            try:
                wait_until(lambda: versions)
                (tmp_path / "2").rename(base / "2")
                wait_until(lambda: states(rest_port).get(1) == ("END", "OK") and versions[-1] == 2, timeout_s=30)
            finally:
                stopped.set()
            for asker in askers:
                asker.result()

        assert set(versions) == {1, 2}
        assert states(rest_port) == {1: ("END", "OK"), 2: ("AVAILABLE", "OK")}


def cut_weights(version):
    (weights,) = version.glob("variables/variables.data*")
    weights.write_bytes(weights.read_bytes()[:1])


def replace_warm_up_by_a_folder(version):
    (version / "assets.extra" / "tf_serving_warmup_requests").mkdir(parents=True)


def test_broken_versions_leave_the_old_one_serving_and_a_higher_one_helps(base, tmp_path):
    for number, damage in {2: shutil.rmtree, 3: cut_weights, 4: replace_warm_up_by_a_folder, 5: lambda _: None}.items():
        damage(make_copy(base / "1", tmp_path / "new" / str(number)))
    (tmp_path / "new" / "2").mkdir()
    with (
        processes.model_server(base, tmp_path, "--file_system_poll_wait_seconds=0.2") as (_, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        for number in (2, 3, 4):
            (tmp_path / "new" / str(number)).rename(base / str(number))
            wait_until(lambda number=number: states(rest_port).get(number, ("", ""))[0] == "END", timeout_s=30)

            assert states(rest_port)[number][1] != "OK"
            assert predict(request_for(label="stable"), timeout=20).model_spec.version.value == 1
        assert states(rest_port)[2] == ("END", "NOT_FOUND")

        (tmp_path / "new" / "5").rename(base / "5")
        wait_until(lambda: states(rest_port).get(5, ("", ""))[0] == "AVAILABLE")
        assert predict(request_for(), timeout=20).model_spec.version.value == 5


@pytest.mark.parametrize(("retries", "state"), [(0, ("END", "NOT_FOUND")), (5, ("LOADING", "OK"))])
def test_a_restart_beside_a_broken_version_serves_the_good_one(base, tmp_path, retries, state):
    (base / "2").mkdir()

    with processes.model_server(base, tmp_path, f"--max_num_load_retries={retries}") as (_, _port, rest_port):
        assert states(rest_port) == {2: state, 1: ("AVAILABLE", "OK")}


def test_a_version_that_waits_for_a_retry_holds_up_neither_labels_nor_the_next_version(base, tmp_path):
    flags = ("--file_system_poll_wait_seconds=0.2", "--max_num_load_retries=5")
    with (
        processes.model_server(base, tmp_path, *flags) as (program, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        (base / "2").mkdir()
        program.wait_for(lambda: "{name: lesion version: 2} failed" in program.output)

        reload(channel, base, latest=3, rollback=1)
        assert predict(request_for(label="rollback"), timeout=20).model_spec.version.value == 1
        make_copy(base / "1", tmp_path / "3").rename(base / "3")
        wait_until(lambda: states(rest_port).get(3) == ("AVAILABLE", "OK"), timeout_s=30)
        assert states(rest_port)[2] == ("LOADING", "OK")


def test_a_failed_load_is_tried_again(base, tmp_path):
    flags = ("--max_num_load_retries=5", "--load_retry_interval_micros=1000000")
    make_copy(base / "1", tmp_path / "whole")
    shutil.rmtree(base / "1" / "variables")
    with server_process(base, tmp_path, *flags) as program:
        program.wait_for(lambda: "{name: lesion version: 1} failed" in program.output)
        assert "Running gRPC ModelServer" not in program.output
        (tmp_path / "whole" / "variables").rename(base / "1" / "variables")

        program.wait_for(lambda: "Running gRPC ModelServer" in program.output)


def test_a_reload_moves_labels_only_to_what_is_available_and_waits_only_for_new_models(base, tmp_path):
    make_copy(base / "1", base / "2")
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with (
        processes.model_server(base, tmp_path) as (_, port, _rest),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict

        reload(channel, base, stable=2)
        assert predict(request_for(label="stable"), timeout=20).model_spec.version.value == 2
        refused = refusal(lambda: reload(channel, base, stable=7))
        assert refused == (
            "FAILED_PRECONDITION",
            "Request to assign label to version 7 of model lesion, which is not currently available for inference",
        )
        assert predict(request_for(label="stable"), timeout=20).model_spec.version.value == 2

        assert refusal(lambda: reload(channel, base, missing=tmp_path / "nowhere", timeout=1))[0] == "DEADLINE_EXCEEDED"
        reload(channel, base, twin=base, stable=1)
        assert predict(request_for(label="stable"), timeout=20).model_spec.version.value == 1
        assert predict(request_for(name="twin"), timeout=20).model_spec.version.value == 2

        failed = refusal(lambda: reload(channel, base, bad=tmp_path / "broken"))
        assert failed == (
            "UNKNOWN",
            "1 model(s) did not become available: {{{name: bad version: 1} due to error: NOT_FOUND: Could not find SavedModel "
            f".pb or .pbtxt at supplied export directory path: {tmp_path}/broken/1. Check that the directory exists and that "
            "you have the right permissions for accessing it.}, }",
        )
        gone = refusal(lambda: predict(request_for(name="twin"), timeout=20))
        assert gone == ("NOT_FOUND", "Servable not found for request: Latest(twin)")


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


def test_a_full_queue_refuses_at_once(base, tmp_path):
    narrow = tmp_path / "batching.config"
    narrow.write_text(
        "max_batch_size { value: 1 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 1 } "
        "num_batch_threads { value: 1 }"
    )
    with (
        processes.model_server(base, tmp_path, batching=str(narrow)) as (_, port, _rest),
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


def test_a_queue_has_its_turn_and_a_late_request_is_never_run(timer_base, tmp_path):
    single = tmp_path / "batching.config"
    single.write_text("max_batch_size { value: 1 } max_enqueued_batches { value: 9 } num_batch_threads { value: 1 }")
    with timer_server(timer_base, tmp_path, f"--batching_parameters_file={single}") as (wait, rest_port):
        ended = []

        def ask(name, *arguments, **timeout):
            answer = wait(*arguments, **timeout)
            answer.add_done_callback(lambda _: ended.append(name))
            return answer

        first = ask("first", 3.0)
        wait_until(lambda: total(rest_port, "batching_session:wrapped_run_count") == 1)
        late = ask("late", 0.0, timeout=0.1)
        assert refusal(late.result)[0] == "DEADLINE_EXCEEDED"
        busy = [ask("busy", 0.2) for _ in range(5)]
        wait_until(lambda: total(rest_port, "batching_session:input_batch_size_count") == 7)
        assert not first.done(), "the machine is too slow for this test"
        other = ask("other", 0.0, "other")
        for answer in (first, other, *busy):
            answer.result()

        assert ended.index("other") < len(ended) - 3
        assert total(rest_port, "batching_session:wrapped_run_count") == 7


def test_calls_beyond_the_thread_limit_are_refused(timer_base, tmp_path):
    with timer_server(timer_base, tmp_path, "--grpc_max_threads=2") as (wait, _):
        answers = [wait(2.0) for _ in range(6)]
        codes = [answer.code().name for answer in answers]

        assert sorted(codes) == ["OK"] * 2 + ["RESOURCE_EXHAUSTED"] * 4
        wait_until(lambda: wait(0.0).code() == grpc.StatusCode.OK)


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
    assert get("/monitoring/prometheus/other")[0] == 404


def test_a_long_text_is_cut(tiny_server):
    request = request_for()
    request.model_spec.signature_name = "x" * 3000
    with grpc.insecure_channel(f"127.0.0.1:{tiny_server[0]}") as channel:
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict

        text = 'Serving signature key "' + "x" * 3000
        assert refusal(lambda: predict(request, timeout=20)) == ("FAILED_PRECONDITION", text[:1024] + "...TRUNCATED")


def test_it_stops_in_order_and_lets_requests_finish(base, tmp_path):
    slow = tmp_path / "batching.config"
    slow.write_text("max_batch_size { value: 32 } batch_timeout_micros { value: 3000000 } num_batch_threads { value: 1 }")
    with (
        processes.model_server(base, tmp_path, batching=str(slow)) as (program, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        pending = [predict.future(request_for(), timeout=20) for _ in range(4)]
        wait_until(lambda: total(rest_port, "batching_session:input_batch_size_count") == 4)

        program.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(rest_port), timeout_s=20)
        assert not any(answer.done() for answer in pending)
        assert program.stop() == 0
        assert [answer.code().name for answer in pending] == ["OK"] * 4


def test_it_stops_while_the_start_waits_for_a_retry(tmp_path):
    (tmp_path / "lesion" / "1").mkdir(parents=True)
    with server_process(tmp_path / "lesion", tmp_path) as program:
        program.wait_for(lambda: "{name: lesion version: 1} failed" in program.output)

        assert program.stop() == 0


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (
            ["--model_base_path=/x", "--batching_parameters_file=/y"],
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true.",
        ),
        (["--model_config_file=/nonexistent/models.config"], "[Errno 2] No such file or directory: "),
    ],
)
def test_a_wrong_start_ends_with_255_and_the_real_text(flags, text):
    command = [sys.executable, "-m", "serving.embedded", *flags]

    result = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 255
    assert f"Failed to start server. Error: {text}" in result.stdout


def test_no_model_becomes_available_whose_only_version_is_broken(tiny_base, tmp_path):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request_for())
    log.predict_log.request.model_spec.signature_name = "nothing"
    broken = {
        "weights": cut_weights,
        "record": lambda version: write_warm_up(version, b"\x00not a record"),
        "request": lambda version: write_warm_up(version, log.SerializeToString()),
        "many": lambda version: write_warm_up(version, *[b""] * 1001),
    }
    for name, damage in {**broken, "enough": lambda version: write_warm_up(version, *[b""] * 1000)}.items():
        damage(make_copy(tiny_base / "1", tmp_path / name / "1"))
    config = tmp_path / "models.config"
    models = [
        f'config {{ name: "{name}" base_path: "{tmp_path / name}" model_platform: "tensorflow" }}'
        for name in (*broken, "enough")
    ]
    config.write_text(f"model_config_list {{ {' '.join(models)} }}")
    command = [
        sys.executable,
        "-m",
        "serving.embedded",
        f"--model_config_file={config}",
        "--port=0",
        "--max_num_load_retries=0",
    ]

    result = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, timeout=90, check=False)

    assert result.returncode == 255
    start = "Failed to start server. Error: 4 servable(s) did not become available: {{{name: weights version: 1} due to error: "
    assert start in result.stdout
    assert "Failed to parse warmup record" in result.stdout
    assert 'FAILED_PRECONDITION: Serving signature key "nothing" not found.' in result.stdout
    file = tmp_path / "many" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    assert f"INVALID_ARGUMENT: Number of warmup records exceeds the maximum (1000) at {file}" in result.stdout
    assert "Successfully loaded servable version {name: enough version: 1}" in result.stderr
    assert "Running gRPC ModelServer" not in result.stdout
