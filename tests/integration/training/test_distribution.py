import dataclasses
import json
import re
import shutil
import sys
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.processes import free_port, running
from training.batches import Batches
from training.config import Phase
from training.data import load_examples
from training.model import build_classifier
from training.train import train

PROGRAM = """
import sys
from pathlib import Path
import tensorflow as tf
from training.config import TrainingConfig
from training.train import train

config, run, strategy = sys.argv[1:]
if strategy == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
train(TrainingConfig.from_json(Path(config).read_text()), Path(run), strategy)
"""

# The two workers take about 50 seconds on two idle cores, and many times that on busy ones.
pytestmark = pytest.mark.timeout(900)
TIMEOUT_S = 850


def started(stack, config, run, strategy, log, **environment):
    """Runs a training process until the stack is closed."""
    file = log.with_suffix(".json")
    file.write_text(config.to_json())
    command = [sys.executable, "-c", PROGRAM, str(file), str(run), strategy]
    return stack.enter_context(running(command, log, **environment))


@pytest.fixture(scope="module")
def workers_config(tiny_config):
    return dataclasses.replace(tiny_config, phases=(Phase(1, 32),))


@pytest.fixture(scope="module")
def workers_run(workers_config, tmp_path_factory):
    """The folder of a run that two processes have trained, and what each of them printed."""
    folder = tmp_path_factory.mktemp("workers")
    cluster = {"worker": [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]}
    with ExitStack() as stack:
        workers = []
        for index in range(2):
            task = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
            log = folder / f"worker-{index}.log"
            workers.append(started(stack, workers_config, folder / "run", "workers", log, TF_CONFIG=task))
        for worker in workers:
            assert worker.process.wait(TIMEOUT_S) == 0, worker.output
        return folder / "run", [worker.output for worker in workers]


def test_two_workers_end_with_the_same_trained_weights(workers_run):
    run, outputs = workers_run
    digests = [re.findall(r"weights of worker (\d): (\w{64})", output) for output in outputs]
    classifier = build_classifier("none")
    classifier.load_weights(run / "model.weights.h5")

    assert [[number for number, _ in found] for found in digests] == [["0"], ["1"]]
    assert digests[0][0][1] == digests[1][0][1]
    # It starts at zero.
    assert np.abs(classifier.get_layer("malignant").get_weights()[0]).max() > 0


def test_only_the_chief_writes(workers_run):
    run, outputs = workers_run

    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoint.weights.h5",
        "config.json",
        "curves.png",
        "history.json",
        "leaks.json",
        "leaks.md",
        "model.weights.h5",
        "tensorboard",
    ]
    assert {path.parent.name for path in run.rglob("events.*")} == {"train", "validation"}
    assert len(list(run.rglob("events.*"))) == 2
    assert [path.suffix for path in (run.parent / "cache").iterdir()] == [".npy", ".npy"]
    assert ["step" in output for output in outputs] == [True, False]


def test_two_devices_of_one_host_resume_what_two_workers_have_begun(workers_run, workers_config, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("checkpoint.weights.h5", "history.json", "leaks.json"):
        shutil.copy(workers_run[0] / name, run)
    leaks = (run / "leaks.json").stat().st_mtime_ns
    longer = dataclasses.replace(workers_config, phases=(Phase(1, 32), Phase(1, 32)))

    with ExitStack() as stack:
        program = started(stack, longer, run, "mirrored", tmp_path / "mirrored.log")
        assert program.process.wait(TIMEOUT_S) == 0, program.output

    before, after = (json.loads((folder / "history.json").read_text()) for folder in (workers_run[0], run))
    assert after[:1] == before
    assert len(after) == 2
    assert np.isfinite(list(after[1].values())).all()
    assert (run / "model.weights.h5").exists()
    assert (run / "leaks.json").stat().st_mtime_ns == leaks


def test_devices_read_parts_of_the_batches_that_one_device_would_read(tiny_config, tmp_path):
    data = Batches.load(load_examples(Path(tiny_config.data)), tiny_config, tmp_path)

    def read(count, replicas=1, workers=1, worker=0):
        context = tf.distribute.InputContext(workers, worker, replicas)
        dataset = data._read(data.train_pixels, data.targets(data.train), lambda: data.draws(seed=3), None, context)
        return [images for images, _ in islice(dataset.as_numpy_iterator(), count)]

    whole = read(3)
    one_each = [read(3, replicas=2, workers=2, worker=worker) for worker in (0, 1)]
    two_each = [read(6, replicas=4, workers=2, worker=worker) for worker in (0, 1)]

    for step, batch in enumerate(whole):
        assert len(batch) == tiny_config.batch_size
        for worker in (0, 1):
            np.testing.assert_array_equal(one_each[worker][step], batch[worker::2])
            for device in (0, 1):
                np.testing.assert_array_equal(two_each[worker][2 * step + device], batch[2 * worker + device :: 4])


def test_devices_that_cannot_share_a_batch_equally_are_refused(tiny_config, tmp_path):
    with ExitStack() as stack:
        odd = dataclasses.replace(tiny_config, batch_size=5)
        program = started(stack, odd, tmp_path / "run", "mirrored", tmp_path / "mirrored.log")

        assert program.process.wait(TIMEOUT_S) == 1

    assert "2 devices cannot share a batch of 5 equally" in program.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("cluster", [None, {"chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}])
def test_workers_need_their_addresses(cluster, tiny_config, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if cluster:
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))

    with pytest.raises(ValueError, match="TF_CONFIG must name the addresses of workers"):
        train(tiny_config, tmp_path / "run", "workers")

    assert not (tmp_path / "run").exists()
