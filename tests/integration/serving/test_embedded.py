"""What the embedded model server does over time where the real one differs or was not observed; the rest: tests/contract."""

import errno
import shutil
import signal
import socket
import subprocess
import sys

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.embedded.flags import parse_flags
from tests import processes
from tests.processes import model_server_total, wait_until


def request_for(label=None):
    images = tf.make_tensor_proto(np.full((1, 224, 224, 3), 51, np.uint8))
    return predict_pb2.PredictRequest(model_spec={"name": "lesion", "version_label": label}, inputs={"images": images})


@pytest.fixture
def base(tmp_path, tiny_base):
    return shutil.copytree(tiny_base, tmp_path / "lesion")


class Timer(tf.Module):
    """Answers when the longest wait of its batch is over, on any machine."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64, "seconds")])
    def wait(self, seconds):
        end = tf.timestamp() + tf.reduce_max(seconds)
        ended = tf.while_loop(lambda now: now < end, lambda now: (tf.timestamp(),), [tf.timestamp()])
        return {"seconds": seconds + 0 * ended[0]}


@pytest.fixture(scope="module")
def timer_base(tmp_path_factory):
    base = tmp_path_factory.mktemp("timer")
    timer = Timer()
    tf.saved_model.save(timer, str(base / "1"), signatures={"serving_default": timer.wait})
    return base


def wait(channel, seconds):
    """Ask the timer; gives the pending call."""
    inputs = {"seconds": tf.make_tensor_proto(np.array([seconds]))}
    request = predict_pb2.PredictRequest(model_spec={"name": "lesion"}, inputs=inputs)
    return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict.future(request, timeout=20)


def refuses(port):
    """Not merely silent, as a port is whose program no longer looks."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def make_copy(version, target):
    return shutil.copytree(version, target)


def reload(channel, base, timeout=20, latest=2, **labels_and_models):
    """`stable=2` gives lesion's version 2 that label, `another=FOLDER` adds a model of that name."""
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


def server_process(base, folder, *flags):
    """One that need not come up."""
    command = [sys.executable, "-m", "serving.embedded", "--port=0", "--model_name=lesion", f"--model_base_path={base}"]
    return processes.running([*command, *flags], folder / "model-server.log")


def states(rest_port):
    rows = requests.get(f"http://127.0.0.1:{rest_port}/v1/models/lesion", timeout=10).json()["model_version_status"]
    return {int(row["version"]): (row["state"], row["status"]["error_code"]) for row in rows}


def cut_weights(version):
    (weights,) = version.glob("variables/variables.data*")
    weights.write_bytes(weights.read_bytes()[:1])


def remove_graph(version):
    (version / "saved_model.pb").unlink()


@pytest.mark.parametrize(("damage", "retries", "state"), [(cut_weights, 0, "END"), (remove_graph, 5, "LOADING")])
def test_a_restart_beside_a_broken_version_serves_the_good_one(base, tmp_path, damage, retries, state):
    damage(make_copy(base / "1", base / "2"))

    with processes.model_server(base, tmp_path, f"--max_num_load_retries={retries}") as (_, _port, rest_port):
        found = states(rest_port)

    assert (found[2][0], found[1]) == (state, ("AVAILABLE", "OK"))
    assert (found[2][1] == "OK") == (state == "LOADING")


def test_what_does_not_load_holds_up_neither_labels_nor_the_next_version(base, tmp_path):
    flags = ("--file_system_poll_wait_seconds=0.2", "--max_num_load_retries=5")
    with (
        processes.model_server(base, tmp_path, *flags) as (program, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        (base / "2").mkdir()
        program.wait_for(lambda: "{name: lesion version: 2} failed" in program.output)

        with pytest.raises(grpc.RpcError) as caught:
            reload(channel, base, latest=3, missing=tmp_path / "nowhere", timeout=1)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
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


def test_calls_beyond_the_thread_limit_are_refused(timer_base, tmp_path):
    with (
        processes.model_server(timer_base, tmp_path, "--grpc_max_threads=2", labels="") as (_, port, _rest),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        answers = [wait(channel, 2.0) for _ in range(6)]
        codes = [answer.code().name for answer in answers]

        assert sorted(codes) == ["OK"] * 2 + ["RESOURCE_EXHAUSTED"] * 4
        wait_until(lambda: wait(channel, 0.0).code() == grpc.StatusCode.OK)


def test_a_connection_ends_at_its_age_but_no_call_with_it_and_the_next_call_makes_another(timer_base, tmp_path):
    """A gateway looks up the addresses anew then: that is how it finds a further replica."""
    age = "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.max_connection_age_grace_ms=20000"
    states = []
    with (
        processes.model_server(timer_base, tmp_path, age, labels="") as (_, port, _rest),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        channel.subscribe(states.append)
        pending = wait(channel, 4.0)
        wait_until(lambda: grpc.ChannelConnectivity.READY in states)
        wait_until(lambda: states[-1] is grpc.ChannelConnectivity.IDLE)

        assert pending.code() is grpc.StatusCode.OK
        assert wait(channel, 0.0).code() is grpc.StatusCode.OK


@pytest.mark.parametrize("given", ["grpc.max_connection_age_ms", "=5", "a=1,b"])
def test_a_channel_argument_that_is_no_pair_ends_the_start(given, capsys):
    with pytest.raises(SystemExit):
        parse_flags(["--model_base_path=x", f"--grpc_channel_arguments={given}"])

    assert "expected key=value" in capsys.readouterr().err


def test_it_stops_in_order_and_lets_requests_finish(base, tmp_path):
    slow = tmp_path / "batching.config"
    slow.write_text("max_batch_size { value: 32 } batch_timeout_micros { value: 3000000 } num_batch_threads { value: 1 }")
    with (
        processes.model_server(base, tmp_path, batching=str(slow)) as (program, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        pending = [predict.future(request_for(), timeout=20) for _ in range(4)]
        wait_until(lambda: model_server_total(rest_port, "batching_session:input_batch_size_count") == 4)

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


def test_a_file_that_is_missing_ends_the_start():
    command = [sys.executable, "-m", "serving.embedded", "--model_config_file=/nonexistent/models.config"]

    result = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 255
    assert "Failed to start server. Error: [Errno 2] No such file or directory: " in result.stdout
