"""What a run is: typed, frozen, with presets. A checkpoint carries the resolved configuration as `config.json`."""

import dataclasses
import json
from pathlib import Path
from typing import Literal

Augmentation = Literal["paper", "capture", "gentle", "foreign"]
Weights = str
"""`imagenet` (Keras's own download), `none`, an .npz with keys `<layer>/<weight>`, or an earlier run's model.weights.h5."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """Some epochs at one resolution, with one list of augmentations."""

    epochs: int
    image_size: int
    augmentation: Augmentation = "capture"


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    Attributes:
        data: a CSV like `path,label,dx,source,lesion_id,group,split`, or a folder with `train/` and `test/`, a folder a class.
        phases: resolutions in the order they are trained.
        steps_per_epoch: None means one pass over the training examples.
        malignant_share: share of malignant examples in a batch; None means as they come.
        diagnosis_weight: of a second loss, cross-entropy over the diagnoses; its head is not exported. 0 means none.
        validation_share: of the training folder; a CSV brings its own split.
        max_examples, max_epoch_validation_examples: use only so many, spread over the split.
        frozen_stages: stages of ResNet-50 that keep their initial weights, such as `conv1`.
        ema_momentum: of the weight average that is exported; None means the last weights.
    """

    name: str
    data: str
    weights: Weights = "imagenet"
    phases: tuple[Phase, ...] = (Phase(epochs=1, image_size=224),)
    batch_size: int = 32
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 2e-4
    weight_decay: float = 1e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_share: float = 0.05
    malignant_share: float | None = None
    diagnosis_weight: float = 0.0
    validation_share: float = 0.2
    frozen_stages: tuple[str, ...] = ()
    ema_momentum: float | None = None
    precision: Literal["float32", "mixed_bfloat16"] = "mixed_bfloat16"
    steps_per_epoch: int | None = None
    max_examples: int | None = None
    max_epoch_validation_examples: int | None = None
    save_h5: bool = False
    seed: int = 1

    @property
    def epochs(self) -> int:
        """Over all phases."""
        return sum(phase.epochs for phase in self.phases)

    def shortened(self, epochs: int) -> "TrainingConfig":
        """The same recipe, ended after so many epochs; a falling rate has fallen by then.

        Raises:
            ValueError: it does not have so many.
        """
        if not 0 < epochs <= self.epochs:
            raise ValueError(f"{self.name} has {self.epochs} epochs, not {epochs}")
        phases: list[Phase] = []
        for phase in self.phases:
            left = epochs - sum(taken.epochs for taken in phases)
            if left > 0:
                phases.append(dataclasses.replace(phase, epochs=min(phase.epochs, left)))
        return dataclasses.replace(self, phases=tuple(phases))

    def continues(self, started: "TrainingConfig") -> bool:
        """Whether a run that was started so can be resumed with this one: the epochs so far would have been the same."""
        if self.schedule != "constant":
            return self == started
        common = min(self.epochs, started.epochs)
        return self.shortened(common) == started.shortened(common)

    def to_json(self) -> str:
        """The resolved configuration, for the checkpoint's folder."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainingConfig":
        """Inverse of `to_json`."""
        fields = json.loads(text)
        fields["phases"] = tuple(Phase(**phase) for phase in fields["phases"])
        fields["frozen_stages"] = tuple(fields["frozen_stages"])
        return cls(**fields)

    @classmethod
    def load(cls, run: Path) -> "TrainingConfig":
        """The configuration that a run was started with."""
        return cls.from_json((run / "config.json").read_text())


def paper(data: str) -> TrainingConfig:
    """The seed's recipe to the letter (MALCOM 4(3), 2024): ResNet-50 at 224, Adam, batch 54, 50 epochs, its augmentations.

    The paper gives no learning rate: Adam's default of 1e-3 is used. All of it trains, BatchNorm too, in float32.
    Command: `python -m training train --preset paper --data FOLDER --out runs/paper`. Time: about 9,600 images x 50 epochs;
    at 5 to 10 images/s on two cores that is 13 to 27 hours, on a GPU under an hour. Score to expect: the paper reports 94.88 %
    accuracy, a selected number; docs/training.md has what its first three epochs gave.
    """
    return TrainingConfig(
        name="paper",
        data=data,
        phases=(Phase(epochs=50, image_size=224, augmentation="paper"),),
        batch_size=54,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        precision="float32",
        save_h5=True,
    )


def smoke(data: str) -> TrainingConfig:
    """Every stage in minutes on two cores; proves the way, not the medicine.

    Command: `python -m training train --preset smoke --data CSV --weights FILE.npz --out runs/smoke`. Time: about a minute.
    Score to expect: validation AUROC of 0.7 to 0.9, on a hundred pictures.
    """
    return TrainingConfig(
        name="smoke",
        data=data,
        phases=(Phase(epochs=1, image_size=64), Phase(epochs=1, image_size=96)),
        batch_size=16,
        steps_per_epoch=20,
        max_examples=400,
        max_epoch_validation_examples=100,
        malignant_share=0.35,
        ema_momentum=0.9,
    )


def release(data: str) -> TrainingConfig:
    """What was released: growing pictures, bfloat16, trained BatchNorm, a second loss over diagnoses, averaged weights.

    Command: `python -m training train --preset release --data ../shared/data/labels.csv --weights FILE.npz --out runs/release`.
    Time on two cores: about two hours with nothing else running. Score to expect: docs/model-card.md.
    """
    return TrainingConfig(
        name="release",
        data=data,
        phases=(
            Phase(epochs=5, image_size=128),
            Phase(epochs=6, image_size=160),
            Phase(epochs=2, image_size=224),
            Phase(epochs=2, image_size=224, augmentation="gentle"),
        ),
        learning_rate=3e-4,
        frozen_stages=("conv1", "conv2"),
        malignant_share=0.35,
        diagnosis_weight=0.5,
        max_epoch_validation_examples=1000,
        ema_momentum=0.998,
    )


PRESETS = {"paper": paper, "smoke": smoke, "release": release}
