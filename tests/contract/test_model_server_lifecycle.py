"""How versions and labels come and go in a model server: discovery, reload, labels, another try of what did not load.

These tests change the folder of versions, so that the server is started here: the embedded one, and tensorflow_model_server
where it is on the PATH. They do not run against TFS_ADDRESS alone. What is expected was read in the sources of TensorFlow
Serving 2.20.0 or observed on it. Cases in which the embedded server is known to differ are left out; docs/adr/0006 lists them.
"""

import itertools
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from tests import processes
from tests.processes import wait_until

State = get_model_status_pb2.ModelVersionStatus.State
Policy = FileSystemStoragePathSourceConfig.ServableVersionPolicy
IMAGE = tf.make_tensor_proto(np.full((1, 224, 224, 3), 51, np.uint8))
ALL = Policy(all=Policy.All())
LATEST = Policy(latest=Policy.Latest(num_versions=1))
TIMEOUT_S = 60
NUMBERS = itertools.count(2)
"""So that no test uses a name or a number of another."""


def listed(*versions):
    return Policy(specific=Policy.Specific(versions=versions))


class Server:
    """A running server. It always serves all versions of `lesion`, and beside them the model of the test."""

    def __init__(self, channel, lesion):
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        self._lesion = Model(self, "lesion", lesion)

    def reload(self, *configs):
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.extend([self._lesion.config(ALL, {}), *configs])
        self.models.HandleReloadConfigRequest(request, timeout=TIMEOUT_S)

    def wait_for_polls(self):
        """Until each folder has been read after this call, as it is between two readings that find news in lesion's."""
        for number in itertools.islice(NUMBERS, 2):
            (self._lesion.base / str(number)).mkdir()
            self._lesion.wait_for({number: "END"})


class Model:
    """A model of a server, and the folder of its versions."""

    def __init__(self, server, name, base):
        self.name = name
        self.base = base
        self._server = server

    def config(self, policy, labels):
        path = str(self.base)
        return ModelConfig(
            name=self.name, base_path=path, model_platform="tensorflow", model_version_policy=policy, version_labels=labels
        )

    def serve(self, policy, **labels):
        self._server.reload(self.config(policy, labels))

    def statuses(self, **choice):
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec(**choice))
        return self._server.models.GetModelStatus(request, timeout=TIMEOUT_S).model_version_status

    def states(self):
        return {status.version: State.Name(status.state) for status in self.statuses()}

    def wait_for(self, states):
        wait_until(lambda: states.items() <= self.states().items())

    def ask(self, **choice):
        """The version that answers."""
        request = predict_pb2.PredictRequest(model_spec=self._spec(**choice), inputs={"images": IMAGE})
        return self._server.predict(request, timeout=TIMEOUT_S).model_spec.version.value

    def _spec(self, version=None, label=None):
        return model_pb2.ModelSpec(name=self.name, version_label=label, version=version and {"value": version})


def outcome(call, *arguments, **options):
    """Code and text of what was refused, or what was answered."""
    try:
        return call(*arguments, **options)
    except grpc.RpcError as error:
        return error.code().name, error.details()


@pytest.fixture(scope="module", params=list(processes.MODEL_SERVERS))
def server(request, tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lifecycle")
    lesion = shutil.copytree(tiny_base, folder / "lesion")
    with (
        processes.model_server(lesion, folder, program=processes.MODEL_SERVERS[request.param]) as (_, port, _rest),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Server(channel, lesion)


@pytest.fixture
def model(server, tmp_path):
    """One that the server has not heard of. Its folder is empty."""
    base = tmp_path / f"model-{next(NUMBERS)}"
    base.mkdir()
    return Model(server, base.name, base)


@pytest.fixture
def put(model, tiny_base, tmp_path):
    """Puts a version into the model's folder in one step, as `publish` does."""

    def put_version(name, *, is_broken=False):
        copy = shutil.copytree(tiny_base / "1", tmp_path / "copy")
        if is_broken:
            (copy / "saved_model.pb").unlink()
        copy.rename(model.base / str(name))

    return put_version


def repair(version, tiny_base):
    shutil.copy(tiny_base / "1" / "saved_model.pb", version)


# Discovery: file_system_storage_path_source.cc, and observed.


def test_every_number_is_a_version(model, put):
    for name in ("1", "0007", "+8", " 10 ", "-9", "v2", "latest"):
        put(name)

    model.serve(ALL)
    model.wait_for(dict.fromkeys([10, 8, 7, 1, -9], "AVAILABLE"))

    assert list(model.states()) == [10, 8, 7, 1, -9]
    assert model.ask() == 10
    assert model.ask(version=-9) == -9


def test_a_folder_with_another_number_is_another_version(model, put):
    put(5)
    model.serve(LATEST)

    (model.base / "5").rename(model.base / "0007")

    model.wait_for({7: "AVAILABLE", 5: "END"})
    assert model.ask() == 7


def test_of_two_folders_with_one_number_the_later_name_is_loaded(model, put):
    put("007", is_broken=True)
    put("7")

    model.serve(LATEST)

    assert model.states() == {7: "AVAILABLE"}


def test_a_folder_without_versions_unloads_what_it_had(model, put, tmp_path):
    put(1)
    model.serve(LATEST, stable=1)

    (model.base / "1").rename(tmp_path / "elsewhere")
    model.wait_for({1: "END"})

    assert outcome(model.ask) == ("NOT_FOUND", f"Servable not found for request: Latest({model.name})")
    assert outcome(model.ask, label="stable") == ("NOT_FOUND", f"Servable not found for request: Specific({model.name}, 1)")


def test_a_new_version_takes_over_under_load_without_an_error(model, put):
    put(1)
    model.serve(LATEST)
    stopped, versions = threading.Event(), []

    def keep_asking():
        while not stopped.is_set():
            versions.append(model.ask())

    with ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(keep_asking) for _ in range(4)]
        try:
            wait_until(lambda: versions)
            put(2)
            model.wait_for({2: "AVAILABLE", 1: "END"})
            wait_until(lambda: versions[-1] == 2)
        finally:
            stopped.set()
        for asker in askers:
            asker.result()

    assert set(versions) == {1, 2}


# What did not load, tried again: aspired_versions_manager.cc, and observed under `latest`.


def test_under_latest_only_a_higher_number_helps(model, server, put, tiny_base):
    put(1)
    model.serve(LATEST, stable=1)
    put(5, is_broken=True)
    model.wait_for({5: "END"})
    assert (model.ask(), model.ask(label="stable")) == (1, 1)

    repair(model.base / "5", tiny_base)
    server.wait_for_polls()
    assert model.states() == {5: "END", 1: "AVAILABLE"}
    shutil.rmtree(model.base / "5")
    server.wait_for_polls()
    put(5)
    server.wait_for_polls()
    assert model.states() == {5: "END", 1: "AVAILABLE"}
    assert model.statuses(version=5)[0].status.error_code != 0
    assert (model.ask(), model.ask(label="stable")) == (1, 1)

    put(6)
    model.wait_for({6: "AVAILABLE", 1: "END"})
    assert model.ask() == 6


def test_a_listed_version_is_tried_again_once_it_was_off_the_list(model, server, put, tiny_base):
    """Unlike above, no version was given up and then wanted again, which is what later requests would wait for."""
    put(1)
    put(2, is_broken=True)
    model.serve(listed(1))
    model.serve(listed(1, 2))
    model.wait_for({2: "END"})

    repair(model.base / "2", tiny_base)
    server.wait_for_polls()
    assert model.states() == {2: "END", 1: "AVAILABLE"}

    model.serve(listed(1))
    server.wait_for_polls()
    model.serve(listed(1, 2))
    model.wait_for({2: "AVAILABLE", 1: "AVAILABLE"})
    assert model.statuses(version=2)[0].status.error_code == 0
    assert model.ask() == 2


# Reload and labels: server_core.cc, and observed.


def test_a_label_moves_in_two_steps(model, put):
    put(1)
    put(2)
    model.serve(listed(1), stable=1)

    # Labels are checked before versions are loaded, and one that exists moves to an available version only.
    text = f"Request to assign label to version 2 of model {model.name}, which is not currently available for inference"
    assert outcome(model.serve, listed(1, 2), stable=2) == ("FAILED_PRECONDITION", text)
    assert model.ask(label="stable") == 1

    model.serve(listed(1, 2), stable=1)
    model.wait_for({2: "AVAILABLE", 1: "AVAILABLE"})
    assert model.ask(label="stable") == 1
    model.serve(listed(1, 2), stable=2, previous=1)
    assert (model.ask(label="stable"), model.ask(label="previous")) == (2, 1)

    model.serve(listed(2), stable=2)
    model.wait_for({1: "END", 2: "AVAILABLE"})
    assert model.ask(label="stable") == 2
    assert outcome(model.ask, label="previous") == ("INVALID_ARGUMENT", "Unrecognized servable version label: previous")
    assert outcome(model.ask, version=1) == ("NOT_FOUND", f"Servable not found for request: Specific({model.name}, 1)")


def test_a_label_keeps_its_version_while_that_is_not_loaded(model, put):
    """With --allow_version_labels_for_unavailable_models, which `make up` sets."""
    for version in (1, 2, 3):
        put(version)
    model.serve(listed(1, 2), stable=1)
    model.wait_for({1: "AVAILABLE", 2: "AVAILABLE"})

    model.serve(listed(2), stable=1, early=3)
    model.wait_for({1: "END"})
    for label, version in {"stable": 1, "early": 3}.items():
        text = f"Servable not found for request: Specific({model.name}, {version})"
        assert outcome(model.ask, label=label) == ("NOT_FOUND", text)
    assert model.ask() == 2

    model.serve(listed(1, 2, 3), stable=1, early=3)
    model.wait_for({1: "AVAILABLE", 3: "AVAILABLE"})
    assert (model.ask(label="stable"), model.ask(label="early")) == (1, 3)


def test_a_listed_version_that_does_not_exist_is_passed_over(model, put):
    put(1)

    model.serve(listed(1, 9))

    assert model.states() == {1: "AVAILABLE"}
    assert outcome(model.statuses, version=9) == ("NOT_FOUND", f"Could not find version 9 of model {model.name}")


def test_a_model_that_is_no_longer_listed_is_unloaded(model, server, put):
    put(1)
    model.serve(LATEST)
    assert model.ask() == 1

    server.reload()
    wait_until(lambda: outcome(model.ask) == ("NOT_FOUND", f"Servable not found for request: Latest({model.name})"))


def test_a_reload_waits_for_a_new_model_and_tells_why_it_does_not_load(model, put):
    put(1, is_broken=True)

    code, text = outcome(model.serve, LATEST)

    assert code == "UNKNOWN"
    assert text.startswith(
        f"1 model(s) did not become available: {{{{{{name: {model.name} version: 1}} due to error: NOT_FOUND: Could not find "
        f"SavedModel .pb or .pbtxt at supplied export directory path: {model.base}/1"
    )
    assert text.endswith("}, }")
