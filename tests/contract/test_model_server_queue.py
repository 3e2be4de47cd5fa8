"""A model server whose only batch thread is busy: what waits, what is refused, what shares a run.

The model keeps the thread busy until a test lets go, so that no test depends on how fast the machine is. It does so with files,
hence the server is started here: the embedded one, and tensorflow_model_server where it is on the PATH. These tests do not run
against TFS_ADDRESS alone. What is expected was read in the sources of TensorFlow Serving 2.20.0 (batching_session.cc, and
TensorFlow's shared_batch_scheduler.h) or observed on it.
"""

from contextlib import contextmanager

import grpc
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_service_pb2_grpc

from tests import processes
from tests.processes import wait_until

BATCHING = (
    "max_batch_size { value: 4 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 2 } "
    "num_batch_threads { value: 1 } allowed_batch_sizes: [ 4 ]"
)
TIMEOUT_S = 60


class GatedModel(tf.Module):
    """`wait` says that it runs, and runs until it is let go; `limit` gives back its values, of which none may be 10 or more."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "gates")])
    def wait(self, gates):
        tf.io.write_file(gates[0] + ".started", "")
        opened = gates[0] + ".open"
        # An optimiser may drop an operation that nobody needs, and take out of a loop what is the same each time; so the answer
        # needs the files, and their name is made from those that were found before: none.
        files = tf.while_loop(
            lambda found: tf.equal(tf.size(found), 0),
            lambda found: (tf.io.matching_files(opened + tf.strings.reduce_join(found)),),
            (tf.io.matching_files(opened),),
            shape_invariants=(tf.TensorShape([None]),),
        )
        with tf.control_dependencies(files):
            return {"gates": tf.identity(gates)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "values")])
    def limit(self, values):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_max(values) < 10.0, ["too big"])]):
            return {"values": tf.identity(values)}


class Server:
    def __init__(self, channel, rest_port):
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        self._page = f"http://127.0.0.1:{rest_port}/monitoring/prometheus/metrics"

    def ask(self, signature, alias, values, timeout=TIMEOUT_S, **choice):
        spec = model_pb2.ModelSpec(name="lesion", signature_name=signature, **choice)
        request = predict_pb2.PredictRequest(model_spec=spec, inputs={alias: tf.make_tensor_proto(values)})
        return self._predict.future(request, timeout=timeout)

    def total(self, name, status=""):
        """Sum over the series of a metric, or over those with that status; 0 while there is none."""
        lines = requests.get(self._page, timeout=10).text.splitlines()
        series = [line.rpartition(" ") for line in lines if line.startswith(f":tensorflow:serving:{name}{{")]
        return sum(float(value) for labels, _, value in series if status in labels)


class Gate:
    """A request for `wait` that fills a batch: sent when it is made."""

    def __init__(self, server, path, timeout=TIMEOUT_S):
        self._path = path
        self.answer = server.ask("wait", "gates", [str(path)] * 4, timeout)

    def has_started(self):
        return self._path.with_suffix(".started").exists()

    def open(self):
        self._path.with_suffix(".open").touch()


@pytest.fixture(scope="module", params=list(processes.MODEL_SERVERS))
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("queue")
    model = GatedModel()
    tf.saved_model.save(model, str(folder / "lesion" / "1"), signatures={"wait": model.wait, "limit": model.limit})
    (folder / "batching.config").write_text(BATCHING)
    with (
        processes.model_server(
            folder / "lesion",
            folder,
            batching=str(folder / "batching.config"),
            labels="",
            program=processes.MODEL_SERVERS[request.param],
        ) as (_, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Server(channel, rest_port)


@pytest.fixture
def gate(server, tmp_path):
    """Makes gates. What a test leaves closed is opened at its end, or the server could not stop."""
    gates = []

    def make(**options):
        gates.append(Gate(server, tmp_path / str(len(gates)), **options))
        return gates[-1]

    yield make
    for made in gates:
        made.open()
    for made in gates:
        made.answer.exception()


@pytest.fixture
def busy(gate):
    """The gate that the server's only thread stands at."""
    made = gate()
    wait_until(made.has_started)
    return made


def outcome(answer):
    return answer.code().name, answer.details()


@contextmanager
def received(server, count):
    """Wait at the end until so many requests more have come to the queues."""
    before = server.total("batching_session:input_batch_size_count")
    yield
    wait_until(lambda: server.total("batching_session:input_batch_size_count") == before + count)


def test_a_full_queue_refuses_at_once(gate, busy):
    waiting = [gate() for _ in range(5)]
    wait_until(lambda: sum(made.answer.done() for made in waiting) == 3)

    full = "The batch scheduling queue to which this task was submitted is full; currently 2 batches enqueued and "
    refused = [made for made in waiting if made.answer.done()]
    assert [outcome(made.answer) for made in refused] == [("UNAVAILABLE", f"{full}max_enqueued_batches is 2")] * 3
    for made in (busy, *waiting):
        made.open()
    queued = [made for made in waiting if made not in refused]
    assert [made.answer.code().name for made in queued] == ["OK", "OK"]
    assert not any(made.has_started() for made in refused)


def test_a_full_queue_refuses_nobody_elses_requests(server, gate, busy):
    waiting = [gate() for _ in range(3)]
    wait_until(lambda: any(made.answer.done() for made in waiting))

    with received(server, 1):
        other = server.ask("limit", "values", [1.0] * 4)
    for made in (busy, *waiting):
        made.open()
    assert other.code().name == "OK"


def test_a_request_whose_deadline_passes_in_the_queue_is_not_run(server, gate, busy):
    expired = server.total("request_count", "RESOURCE_EXHAUSTED")

    with received(server, 2):
        late, later = gate(timeout=2), gate(timeout=3.5)
    later.open()
    assert [made.answer.code().name for made in (late, later)] == ["DEADLINE_EXCEEDED"] * 2
    # The server's clock runs behind by what the request was on its way, hence the later one: it may yet run, this one may not.
    busy.open()

    # What the caller can no longer hear: `Run() timeout exceeded while waiting in batching queue`.
    wait_until(lambda: server.total("request_count", "RESOURCE_EXHAUSTED") > expired)
    # One that came after them has its turn after them.
    after = gate()
    after.open()
    assert after.answer.code().name == "OK"
    assert not late.has_started()


def test_queues_take_turns(server, gate, busy):
    with received(server, 1):
        first = gate()
    with received(server, 2):
        second = gate()
        other = server.ask("limit", "values", [1.0] * 4)

    busy.open()
    first.open()

    assert other.code().name == "OK"
    assert not second.answer.done()


def test_requests_that_wait_share_a_run_and_each_gets_its_own_answer(server, busy):
    runs, padding = (server.total(f"batching_session:{name}") for name in ("processed_batch_size_count", "padding_size_sum"))
    # The run that keeps the thread busy has begun: it is in these two, but only counts as a run when it is over.
    over = server.total("batching_session:wrapped_run_count")
    with received(server, 3):
        answers = [server.ask("limit", "values", [value]) for value in (1.0, 2.0, 3.0)]
    busy.open()

    assert [list(answer.result().outputs["values"].float_val) for answer in answers] == [[1.0], [2.0], [3.0]]
    assert server.total("batching_session:processed_batch_size_count") == runs + 1
    assert server.total("batching_session:wrapped_run_count") == over + 2
    assert server.total("batching_session:padding_size_sum") == padding + 1


def test_one_bad_row_fails_all_requests_of_its_run(server, busy):
    with received(server, 3):
        answers = [server.ask("limit", "values", [value]) for value in (1.0, 11.0, 3.0)]
    busy.open()

    assert {answer.code().name for answer in answers} == {"INVALID_ARGUMENT"}
    assert all("assertion failed: [too big]" in answer.details() for answer in answers)


def test_a_label_is_unavailable_on_a_server_that_was_never_given_one(server):
    answer = server.ask("limit", "values", [1.0], version_label="stable")

    assert outcome(answer) == ("UNAVAILABLE", "Model labels does not init yet.stable")
