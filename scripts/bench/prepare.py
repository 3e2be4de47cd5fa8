"""What a run needs before it begins: the model in each form, the pictures as files, the right answers."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from scripts.bench.answers import paint_pictures, right_answers
from scripts.bench.contestants import Contestant, Prepared
from scripts.bench.keras_model import write_h5
from scripts.bench.visits import Question
from serving.contract import STABLE_LABEL
from serving.models_config import read_models_config
from tests import processes
from training.evaluate import load_predict_fn


def released() -> Path:
    """The folder of the version that answers."""
    configured = read_models_config(processes.ROOT / "serving" / "config" / "models.config").labels[STABLE_LABEL]
    return processes.ROOT / "serving" / "models" / "lesion" / str(configured)


def prepare(version: Path, contestants: list[Contestant], pythons: Mapping[str, str], folder: Path) -> Prepared:
    """Write the other forms of the model that somebody in the run needs."""
    prepared = Prepared(version, folder / "model.h5", folder / "model.onnx", pythons)
    environments = {contestant.environment for contestant in contestants}
    if None in environments:
        write_h5(version, prepared.h5)
    if "engines" in environments:
        command = [pythons["engines"], "-m", "scripts.bench.onnx_model", str(version), str(prepared.onnx)]
        subprocess.run(command, cwd=processes.ROOT, check=True, capture_output=True)
    return prepared


def questions(version: Path, folder: Path) -> dict[str, Question]:
    """Pictures in a folder, with what the released version answers."""
    pictures = paint_pictures()
    answers = right_answers(load_predict_fn(version), pictures)
    asked = {}
    for number, (name, data) in enumerate(pictures.items()):
        path = folder / f"picture-{number}"
        path.write_bytes(data)
        asked[name] = Question(path, answers[name])
    return asked
