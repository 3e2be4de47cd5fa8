"""`python -m serving` against running model servers, under traffic."""

import shutil
import threading
from contextlib import ExitStack, contextmanager
from itertools import groupby

import numpy as np
import pytest

from gateway.errors import PredictionError
from gateway.tfserving import TFServingPredictor
from serving.__main__ import main
from serving.model_server import ModelServer
from serving.models_config import Deployment, read_models_config, write_models_config
from tests import processes
from tests.processes import ROOT

THRESHOLDS = {1: 0.4, 2: 0.5, 3: 0.6}
"""Of the versions: an answer that is read with another version's threshold shows."""

SETTLE = dict.fromkeys(("canary", "promote", "rollback"), ("--settle", "0.5"))

IMAGE = np.full((224, 224, 3), 100, np.uint8)


@pytest.fixture(scope="module")
def versions(tmp_path_factory, make_version):
    """Three good versions, and version 4, whose graph is broken although its checksums hold. Nobody changes them."""
    base = tmp_path_factory.mktemp("versions")
    for number, threshold in THRESHOLDS.items():
        make_version(base, number, str(threshold))
    candidate = tmp_path_factory.mktemp("broken") / "candidate"
    shutil.copytree(base / "3", candidate)
    (candidate / "saved_model.pb").write_bytes(b"no graph")
    (candidate / "assets.extra" / "SHA256SUMS").unlink()
    metadata = (candidate / "assets.extra" / "metadata.json").read_text()
    (candidate / "assets.extra" / "metadata.json").write_text(metadata.replace('"version": 3', '"version": 4'))
    assert main(["publish", "--files-only", str(candidate), str(base)]) == 0
    return base


@pytest.fixture(scope="module")
def replicas(versions, tmp_path_factory):
    """Two model servers that start from one models.config: its path, and their addresses."""
    folder = tmp_path_factory.mktemp("replicas")
    config = folder / "models.config"
    config.write_text((ROOT / "serving/config/models.config").read_text())
    write_models_config(config, first(versions))
    with ExitStack() as stack:
        ports = [stack.enter_context(server(folder / name, config)) for name in ("a", "b")]
        yield config, [f"127.0.0.1:{port}" for port in ports]


@contextmanager
def server(folder, config):
    folder.mkdir()
    with processes.model_server_from(config, folder) as (_, port, _rest):
        yield port


def first(versions):
    return Deployment(str(versions), frozenset({1}), {"stable": 1, "canary": 1})


@pytest.fixture
def run(replicas, versions):
    """A command on both replicas; before each test they serve version 1 alone."""
    config, addresses = replicas
    write_models_config(config, first(versions))
    for address in addresses:
        with ModelServer(address) as replica:
            replica.reload(first(versions))
    options = ["--config", str(config), *(option for address in addresses for option in ("--server", address))]
    return lambda command, *arguments: main([command, *map(str, arguments), *options, *SETTLE.get(command, ())])


class Traffic:
    """Asks a server for `stable` without a pause, as the gateway does."""

    def __init__(self, address):
        self.answers, self.errors = [], []
        self._predictor = TFServingPredictor(address, "stable", 5.0)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self):
        while not self._stopped.is_set():
            try:
                version = self._predictor.predict(IMAGE).model_version
                self.answers.append((version, self._predictor.metadata(version).thresholds.malignant))
            except PredictionError as error:
                self.errors.append(str(error))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        self._thread.join()
        self._predictor.close()


def test_no_request_is_lost_from_the_canary_to_its_promotion_and_back(run, replicas, capsys):
    config, addresses = replicas
    with ExitStack() as stack:
        traffic = [stack.enter_context(Traffic(address)) for address in addresses]

        assert run("canary", 2) == 0
        assert read_models_config(config).labels == {"stable": 1, "canary": 2}
        assert run("status") == 0
        assert run("promote") == 0
        assert read_models_config(config).labels == {"stable": 2, "canary": 2, "previous": 1}
        assert run("rollback") == 0

    assert read_models_config(config).labels == {"stable": 1, "canary": 1}
    for asked in traffic:
        assert asked.errors == []
        assert [version for version, _ in groupby(versions_of(asked))] == [1, 2, 1]
        assert all(threshold == THRESHOLDS[version] for version, threshold in asked.answers)
    told = capsys.readouterr().out
    for address in addresses:
        assert f"{address}: version 2 AVAILABLE" in told
        assert f"{address}: canary is answered by version 2" in told


def versions_of(traffic):
    return [version for version, _ in traffic.answers]


def test_a_version_that_does_not_load_changes_nothing(run, replicas, capsys):
    config, addresses = replicas
    before = read_models_config(config)

    with Traffic(addresses[0]) as traffic:
        assert run("promote", 4) == 1

    assert "version 4 does not load" in capsys.readouterr().err
    assert traffic.errors == []
    assert set(versions_of(traffic)) == {1}
    assert read_models_config(config) == before
    assert run("status") == 0
    # It stands in nobody's way, and may be tried again.
    assert run("canary", 3) == 0
    assert run("rollback") == 0
    assert run("canary", 4) == 1
    assert "version 4 does not load" in capsys.readouterr().err


def test_a_version_that_was_tampered_with_is_not_loaded(run, replicas, versions, tmp_path, capsys):
    copy = tmp_path / "versions"
    shutil.copytree(versions, copy)
    (copy / "2" / "saved_model.pb").write_bytes(b"another graph")

    assert run("canary", 2, "--base", copy) == 1

    assert "checksums differ for saved_model.pb" in capsys.readouterr().err
    assert run("canary", 2, "--base", tmp_path / "nowhere") == 1
    assert "is no folder" in capsys.readouterr().err
    assert read_models_config(replicas[0]).versions == {1}


def test_a_replica_that_cannot_be_reached_keeps_the_others_as_they_were(run, replicas, capsys):
    config, addresses = replicas
    nobody = f"127.0.0.1:{processes.free_port()}"
    servers = [option for address in (*addresses, nobody) for option in ("--server", address)]

    assert main(["canary", "2", "--config", str(config), *servers]) == 1

    told = capsys.readouterr().err
    assert f"{nobody}: UNAVAILABLE" in told
    assert "NOT put back" in told
    assert read_models_config(config).labels == {"stable": 1, "canary": 1}
    with ModelServer(addresses[0]) as replica:
        assert replica.labels() == {"stable": 1, "canary": 1}
    assert main(["status", "--config", str(config), *servers]) == 1
    status = capsys.readouterr()
    assert f"{addresses[1]}: stable is answered by version 1" in status.out
    assert nobody in status.err


def test_a_replica_that_differs_is_told_and_healed(run, replicas, versions, tmp_path, capsys):
    _, addresses = replicas
    with ModelServer(addresses[1]) as replica:
        # Somebody called it by hand.
        own = tmp_path / "models.config"
        own.write_text("")
        write_models_config(own, first(versions))
        assert main(["promote", "2", "--config", str(own), "--server", addresses[1], *SETTLE["promote"]]) == 0

        assert run("status") == 1
        assert f"{addresses[1]} differs" in capsys.readouterr().err
        assert run("canary", 3) == 0
        assert replica.metadata(label="stable").version == 1
