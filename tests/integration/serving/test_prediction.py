"""What the embedded model server makes of odd models, odd requests and odd HTTP."""

import gc
import shutil
import signal
import socket
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.embedded.batching import BatchScheduler
from serving.embedded.catalogue import Catalogue
from serving.embedded.config import Batching, read_model_configs
from serving.embedded.flags import parse_flags
from serving.embedded.monitoring import Monitoring
from serving.embedded.prediction import PredictionService
from serving.embedded.servable import WARMUP_FILE, Servable
from serving.embedded.status import ServingError
from serving.embedded.versions import State
from tests import processes
from tests.processes import model_server_total, wait_until

BEGUN = "batching_session:processed_batch_size_count"


CONVERTED = {"float16": None, "bfloat16": None, "float32": "float_val", "float64": "double_val", "bool": "bool_val"}
CONVERTED |= {"int64": "int64_val", "uint32": "uint32_val", "uint64": "uint64_val"}
CONVERTED |= dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), "int_val")


class OddModel(tf.Module):
    """Signatures that fail, dawdle, or answer with what a batch cannot be cut from."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "values")])
    def double(self, values):
        return {"doubled": values * 2.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "values")])
    def limit(self, values):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_max(values) < 10.0, ["too big"])]):
            return {"limited": tf.identity(values)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "values")])
    def name(self, values):
        return {"name": tf.constant("odd\0")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "values")])
    def convert(self, values):
        return {kind: tf.cast(values, kind) for kind in CONVERTED}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "seconds")])
    def dawdle(self, seconds):
        end = tf.timestamp() + tf.cast(tf.reduce_max(seconds), tf.float64)
        tf.while_loop(lambda now: now < end, lambda now: (tf.timestamp(),), (tf.timestamp(),))
        return {"seconds": tf.identity(seconds)}


@pytest.fixture(scope="module")
def odd_base(tmp_path_factory):
    base = tmp_path_factory.mktemp("odd") / "lesion"
    model = OddModel()
    names = ["double", "limit", "name", "convert", "dawdle"]
    tf.saved_model.save(model, str(base / "1"), signatures={name: getattr(model, name) for name in names})
    return base


def one_by_one(folder):
    path = folder / "batching.config"
    path.write_text("max_batch_size { value: 1 } max_enqueued_batches { value: 100 } num_batch_threads { value: 1 }")
    return str(path)


@pytest.fixture(scope="module", params=["batched", "unbatched"])
def odd_server(request, odd_base, tmp_path_factory):
    """A channel and the metrics page of a server that runs one request at a time, or as they come."""
    folder = tmp_path_factory.mktemp("odd-server")
    batching = one_by_one(folder) if request.param == "batched" else None
    with (
        processes.model_server(odd_base, folder, "--grpc_max_threads=32", batching=batching) as (_, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel), rest_port


batched = pytest.mark.parametrize("odd_server", ["batched"], indirect=True)
unbatched = pytest.mark.parametrize("odd_server", ["unbatched"], indirect=True)


def request_for(signature, *, alias="values", value=(1.5,)):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "lesion"
    request.model_spec.signature_name = signature
    tensor = value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value, tf.float32)
    request.inputs[alias].CopyFrom(tensor)
    return request


def dawdle(seconds):
    return request_for("dawdle", alias="seconds", value=[seconds])


def failure(stub, request):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=30)
    return caught.value.code().name, caught.value.details()


def test_a_call_without_a_deadline_is_answered(odd_server):
    stub, _ = odd_server

    assert stub.Predict(request_for("double")).outputs["doubled"].float_val == [3.0]


@batched
def test_an_output_that_cannot_be_cut_fails_its_batch_and_no_other(odd_server):
    stub, _ = odd_server

    assert failure(stub, request_for("name")) == ("FAILED_PRECONDITION", "Batched output tensor has 0 dimensions")
    assert stub.Predict(request_for("double"), timeout=30).outputs["doubled"].float_val == [3.0]


@unbatched
def test_a_lone_string_keeps_its_bytes(odd_server):
    stub, _ = odd_server

    output = stub.Predict(request_for("name"), timeout=30).outputs["name"]

    assert (output.dtype, output.string_val, len(output.tensor_shape.dim)) == (types_pb2.DT_STRING, [b"odd\0"], 0)


@unbatched
def test_every_type_has_its_own_field(odd_server):
    stub, _ = odd_server

    outputs = stub.Predict(request_for("convert", value=[0.0, 1.0]), timeout=30).outputs

    for kind, field in CONVERTED.items():
        assert tf.make_ndarray(outputs[kind]).tolist() == [0, 1], kind
        assert field is None or len(getattr(outputs[kind], field)) == 2, kind


@contextmanager
def serving(service):
    """A channel to a service of this process."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
        server.stop(None).wait()


def test_what_nobody_foresaw_is_unknown_and_counted():
    class BrokenCatalogue:
        def resolve(self, spec):
            raise KeyError(spec.name)

    metrics = Monitoring()
    with serving(PredictionService(BrokenCatalogue(), None, metrics)) as stub:
        answer = failure(stub, request_for("double"))

    assert answer == ("UNKNOWN", "KeyError: 'lesion'")
    assert ':request_count{model_name="lesion",status="UNKNOWN"} 1' in metrics.page()


def test_an_operation_that_fails_speaks_for_itself(odd_server):
    stub, _ = odd_server

    code, text = failure(stub, request_for("limit", value=[11.0]))

    assert code == "INVALID_ARGUMENT"
    assert text.startswith("assertion failed: [too big]\n\t [[{{")
    assert text.endswith("}}]]")


def test_types_are_called_what_the_runtime_calls_them(odd_server):
    stub, _ = odd_server
    wrong = tf.make_tensor_proto([1.0], tf.float64)

    expected = "INVALID_ARGUMENT", "Expects arg[0] to be float but double is provided"
    assert failure(stub, request_for("double", value=wrong)) == expected


@unbatched
def test_the_initialiser_is_no_signature_to_ask_for(odd_server):
    stub, _ = odd_server
    request = request_for("__saved_model_init_op")
    request.inputs.clear()

    assert failure(stub, request) == ("INVALID_ARGUMENT", 'Signature "__saved_model_init_op" cannot be run')


@pytest.mark.parametrize(
    ("count", "expected"), [(0, [0.0, 0.0, 0.0]), (1, [2.0, 2.0, 2.0]), (3, [2.0, 4.0, 6.0]), (5, [2.0, 4.0, 6.0])]
)
@unbatched
def test_values_are_cut_or_repeated_to_the_shape(odd_server, count, expected):
    stub, _ = odd_server
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=range(1, count + 1))
    tensor.tensor_shape.dim.add(size=3)

    assert stub.Predict(request_for("double", value=tensor), timeout=30).outputs["doubled"].float_val == expected


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (types_pb2.DT_INVALID, 1),
        (types_pb2.DT_RESOURCE, 1),
        (types_pb2.DT_VARIANT, 1),
        (120, 1),
        (types_pb2.DT_FLOAT, -1),
        (types_pb2.DT_FLOAT, 2**44),
        (types_pb2.DT_FLOAT, 2**62),
        (types_pb2.DT_STRING, 2**44),
    ],
)
@unbatched
def test_what_is_no_tensor_is_named_by_its_alias(odd_server, dtype, size):
    stub, _ = odd_server
    tensor = tensor_pb2.TensorProto(dtype=dtype, float_val=[1.0], string_val=[b"x"])
    tensor.tensor_shape.dim.add(size=size)

    assert failure(stub, request_for("double", value=tensor)) == ("INVALID_ARGUMENT", "tensor parsing error: values")


def batching(**changes):
    parameters = {
        "max_batch_size": 2,
        "batch_timeout_s": 10.0,
        "max_enqueued_batches": 8,
        "num_batch_threads": 1,
        "thread_pool_name": "test",
        "allowed_batch_sizes": (),
    }
    return Batching(**(parameters | changes))


@pytest.fixture
def scheduler():
    started = BatchScheduler(batching(), Monitoring())
    yield started
    started.stop()


def soon():
    return time.monotonic() + 30


def test_types_in_one_batch_are_named_in_the_order_they_came(odd_base, scheduler):
    servable = Servable("lesion", 1, odd_base / "1")

    answers = [
        scheduler.submit(servable, "double", {"values": np.ones(1, kind)}, ("doubled",), soon())
        for kind in (np.float32, np.float64)
    ]

    for answer in answers:
        with pytest.raises(ServingError) as caught:
            answer.result(timeout=30)
        assert (caught.value.code, caught.value.message) == (
            grpc.StatusCode.INTERNAL,
            "Tensor concat operation failed: INVALID_ARGUMENT: Cannot concatenate tensors that have different data types. "
            "Got float and double.",
        )


def test_a_version_loaded_again_under_its_number_shares_no_run(odd_base, tiny_base, scheduler):
    inputs = {"schema_version": np.ones(1, np.int32)}
    again = Servable("lesion", 1, tiny_base / "1")
    before = Servable("lesion", 1, odd_base / "1")

    old = scheduler.submit(before, "metadata", inputs, ("metadata",), soon())
    new = scheduler.submit(again, "metadata", inputs, ("metadata",), soon())
    scheduler.stop()

    assert b"schema_version" in new.result(timeout=30)["metadata"][0]
    with pytest.raises(KeyError):  # the odd model has no such signature
        old.result(timeout=30)


def test_an_idle_thread_keeps_no_version(odd_base, scheduler):
    servable = Servable("lesion", 1, odd_base / "1")
    scheduler.submit(servable, "double", {"values": np.ones(2, np.float32)}, ("doubled",), soon()).result(timeout=30)

    gone = weakref.ref(servable)
    del servable

    wait_until(lambda: gc.collect() >= 0 and gone() is None)


@pytest.fixture
def no_collector():
    """Whoever leaves a circle of references is found out."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count_errors():
    return sum(isinstance(it, ServingError | tf.errors.OpError) for it in gc.get_objects())


def count_graphs():
    return sum(isinstance(it, tf.Graph) for it in gc.get_objects())


@pytest.mark.parametrize("is_batched", [True, False])
@pytest.mark.parametrize(
    ("request_that_fails", "timeout_s", "expected"),
    [
        (request_for("limit", value=[11.0]), 30, "INVALID_ARGUMENT"),
        (request_for("double", alias="unknown"), 30, "INVALID_ARGUMENT"),
        # The server notices a second later, while the batch still runs.
        (dawdle(1.5), 0.2, "DEADLINE_EXCEEDED"),
    ],
    ids=["it fails in its run", "it is refused", "its deadline passes"],
)
@pytest.mark.usefixtures("no_collector")
def test_a_call_that_fails_lets_go_of_what_it_held(odd_base, scheduler, request_that_fails, timeout_s, expected, is_batched):
    class OneVersion:
        def resolve(self, spec):
            return servable

    servable = Servable("lesion", 1, odd_base / "1")
    before = count_errors()
    with serving(PredictionService(OneVersion(), scheduler if is_batched else None, Monitoring())) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request_that_fails, timeout=timeout_s)
        assert caught.value.code().name == expected

    wait_until(lambda: count_errors() == before)


@pytest.mark.usefixtures("no_collector")
def test_a_version_that_is_unloaded_leaves_nothing_in_memory(odd_base, tmp_path):
    base = tmp_path / "lesion"
    shutil.copytree(odd_base / "1", base / "1")
    flags = parse_flags(["--model_name=lesion", f"--model_base_path={base}", "--file_system_poll_wait_seconds=1"])
    catalogue = Catalogue(flags, Monitoring())
    names = catalogue.configure(read_model_configs(flags))
    catalogue.start()
    assert catalogue.wait_for(names, 60, "servable(s)")
    gc.collect()
    with_one = count_graphs()

    shutil.copytree(base / "1", base / "2")
    wait_until(lambda: [record.state for _, record in catalogue.statuses("lesion", 1)] == [State.END])

    wait_until(lambda: count_graphs() == with_one)
    catalogue.stop()


def test_after_the_stop_a_request_is_refused(odd_base, scheduler):
    servable = Servable("lesion", 1, odd_base / "1")
    scheduler.stop()

    with pytest.raises(ServingError) as caught:
        scheduler.submit(servable, "double", {"values": np.ones(1, np.float32)}, ("doubled",), soon())

    assert caught.value.code == grpc.StatusCode.UNAVAILABLE


def test_a_warm_up_file_that_cannot_be_read_fails_with_the_runtimes_code(odd_base, tmp_path):
    (tmp_path / WARMUP_FILE).mkdir(parents=True)

    with pytest.raises(ServingError) as caught:
        Servable("lesion", 1, odd_base / "1").warm_up(tmp_path, Monitoring())

    assert caught.value.code == grpc.StatusCode.FAILED_PRECONDITION
    assert "[Op:" not in caught.value.message


def test_a_version_that_fails_is_not_kept_in_memory(odd_base, tmp_path):
    broken = shutil.copytree(odd_base / "1", tmp_path / "broken" / "1")
    (broken / WARMUP_FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(broken / WARMUP_FILE)) as writer:
        writer.write(b"no record")
    flags = parse_flags(["--model_name=broken", f"--model_base_path={broken.parent}", "--max_num_load_retries=0"])
    catalogue = Catalogue(flags, Monitoring())
    names = catalogue.configure(read_model_configs(flags))
    catalogue.start()

    with pytest.raises(ServingError, match="Failed to parse warmup record"):
        catalogue.wait_for(names, 60, "servable(s)")

    wait_until(
        lambda: gc.collect() >= 0 and not [it for it in gc.get_objects() if isinstance(it, Servable) and it.name == "broken"]
    )
    catalogue.stop()


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it came as the port closed
        return False
    return False


def test_the_rest_port_closes_while_the_last_calls_run(odd_base, tmp_path):
    with (
        processes.model_server(odd_base, tmp_path, batching=one_by_one(tmp_path)) as (program, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        last = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict.future(dawdle(4.0), timeout=30)
        wait_until(lambda: model_server_total(rest_port, BEGUN) == 1)
        program.process.send_signal(signal.SIGTERM)

        wait_until(lambda: is_refused(rest_port))
        assert program.process.poll() is None
        assert last.result().outputs["seconds"].float_val == [4.0]


def test_loads_are_counted_by_path_and_by_what_came_of_them(odd_base, tmp_path):
    """Name and labels as in TensorFlow's cc/saved_model/loader.cc; one that fails its warm-up was loaded before."""
    no_graph, a_file, cold = tmp_path / "2", tmp_path / "3", shutil.copytree(odd_base / "1", tmp_path / "4")
    no_graph.mkdir()
    a_file.write_text("")
    (cold / WARMUP_FILE).mkdir(parents=True)
    flags = parse_flags(["--model_name=odd", f"--model_base_path={tmp_path}", "--max_num_load_retries=0"])
    metrics = Monitoring()
    catalogue = Catalogue(flags, metrics)

    for version, path in ((1, odd_base / "1"), (2, no_graph), (2, no_graph), (3, a_file), (4, cold)):
        catalogue._try_to_load("odd", version, path)

    counted = [line for line in metrics.page().splitlines() if "load_attempt_count" in line]
    assert counted == [
        "# TYPE :tensorflow:cc:saved_model:load_attempt_count counter",
        f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{odd_base / "1"}",status="success"}} 1',
        f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{no_graph}",status="fail"}} 2',
        f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{cold}",status="success"}} 1',
    ]
