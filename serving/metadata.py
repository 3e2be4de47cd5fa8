"""What is true of ONE model version and of no other: thresholds, calibration, operating point, scores, provenance.

The document travels inside the SavedModel (signature `metadata`), so that an answer can only be read with the thresholds of the
version that gave it. A readable copy stands in the version's assets.extra/metadata.json.
"""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

import cattrs
from cattrs.gen import make_dict_unstructure_fn

from serving.contract import CLASSES, MODEL_NAME, SCHEMA_VERSION


class MetadataError(ValueError):
    """The document is not a valid description of a version of this model."""


@dataclass(frozen=True)
class Estimate:
    """A measured figure: the value, its 95 % interval and how many examples it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        """Refuse an interval that does not hold its value (NaN holds nothing) or has no end."""
        _require(math.isfinite(self.low) and math.isfinite(self.high), f"the interval [{self.low}, {self.high}] has no end")
        _require(self.low <= self.value <= self.high, f"{self.value} lies outside its interval [{self.low}, {self.high}]")
        _require(self.n > 0, "an estimate needs examples")


@dataclass(frozen=True)
class Thresholds:
    """Where the decision changes. Chosen on the validation split.

    Attributes:
        malignant: calibrated probability from which a picture is called malignant.
        none: none score from which a picture is called out of scope.
        uncertain_low, uncertain_high: abstain band; probabilities from low up to, not including, high get no label.
        guard: from this probability on, a picture that looks out of scope is reported as uncertain, never as out of scope.
    """

    malignant: float
    none: float
    uncertain_low: float
    uncertain_high: float
    guard: float

    def __post_init__(self) -> None:
        """Refuse thresholds that no probability can meet, or a band that lies beside the threshold."""
        _require(
            0 < self.uncertain_low <= self.malignant <= self.uncertain_high < 1,
            "0 < uncertain_low <= malignant <= uncertain_high < 1 does not hold",
        )
        _require(0 < self.guard < 1, "guard is not a probability")
        _require(math.isfinite(self.none), "the none threshold is not finite")


@dataclass(frozen=True)
class Calibration:
    """Platt's map inside the graph: probability = sigmoid(slope * logit + intercept)."""

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        """Refuse a map that is not one, or turns the order of the logits round."""
        _require(math.isfinite(self.slope) and self.slope > 0, "the slope of the calibration is not positive")
        _require(math.isfinite(self.intercept), "the intercept of the calibration is not finite")


@dataclass(frozen=True)
class OperatingPoint:
    """What the malignant threshold gives on a split the threshold was not chosen on."""

    split: str
    sensitivity: Estimate
    specificity: Estimate


@dataclass(frozen=True)
class Score:
    """One line of the model card: what was measured, on which pictures."""

    metric: str
    subset: str
    estimate: Estimate


@dataclass(frozen=True)
class Source:
    """A data set the weights were fitted on."""

    name: str
    terms: str
    n: int


@dataclass(frozen=True)
class Provenance:
    """Where the version comes from."""

    created: str
    preset: str
    config_sha256: str
    initial_weights: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Histogram:
    """How many pictures had a score in each bin.

    Attributes:
        edges: rising; a bin holds what is over the edge before it, up to and including its own. The last bin has no end.
        counts: of every bin, one more than there are edges.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be read as one."""
        _require(all(low < high for low, high in pairwise((-math.inf, *self.edges, math.inf))), "the edges do not rise")
        _require(len(self.counts) == len(self.edges) + 1, f"{len(self.counts)} counts for {len(self.edges)} edges")
        _require(min(self.counts) >= 0 < sum(self.counts), "the counts are not those of any pictures")


@dataclass(frozen=True)
class Reference:
    """What the version answered to the lesions of one split: what it answers in use is compared with it.

    Attributes:
        split: never the test split, which chooses and triggers nothing.
        malignant: of the calibrated probability.
        none_score: of the same pictures.
    """

    split: str
    malignant: Histogram
    none_score: Histogram

    def __post_init__(self) -> None:
        """Refuse histograms of different pictures."""
        _require(sum(self.malignant.counts) == sum(self.none_score.counts), "the two histograms hold different pictures")

    @property
    def edges(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of both histograms."""
        return self.malignant.edges, self.none_score.edges


@dataclass(frozen=True)
class GoldenAnswer:
    """What the version answered to `serving.contract.GOLDEN_PICTURE` when it was made.

    Attributes:
        picture_sha256: of the file; with another picture there is nothing to compare.
        malignant: calibrated probability.
        none_score: of the same answer.
        malignant_tolerance, none_score_tolerance: largest difference that is not another answer.
    """

    picture_sha256: str
    malignant: float
    none_score: float
    malignant_tolerance: float
    none_score_tolerance: float

    def __post_init__(self) -> None:
        """Refuse an answer that none could equal, or that all would."""
        _require(0 <= self.malignant <= 1, "the golden probability is none")
        _require(math.isfinite(self.none_score), "the golden none score is not finite")
        _require(0 < self.malignant_tolerance < 1, "the golden probability's tolerance is not between 0 and 1")
        _require(0 < self.none_score_tolerance < math.inf, "the golden none score's tolerance is not a positive number")


@dataclass(frozen=True)
class ModelMetadata:
    """The whole document. What may be None is left out of it then: versions before 3 have neither."""

    schema_version: int
    name: str
    version: int
    classes: tuple[str, ...]
    thresholds: Thresholds
    calibration: Calibration
    operating_point: OperatingPoint
    none_score: str
    scores: tuple[Score, ...]
    provenance: Provenance
    reference: Reference | None = None
    golden: GoldenAnswer | None = None

    def __post_init__(self) -> None:
        """Refuse a document for another contract."""
        _require(self.schema_version == SCHEMA_VERSION, f"schema version {self.schema_version}, expected {SCHEMA_VERSION}")
        _require(self.name == MODEL_NAME, f"model {self.name!r}, expected {MODEL_NAME!r}")
        _require(self.classes == CLASSES, f"classes {self.classes}, expected {CLASSES}")
        _require(self.version > 0, "the version is not a positive number")

    def to_json(self) -> str:
        """The document as text."""
        return json.dumps(_CONVERTER.unstructure(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "ModelMetadata":
        """Read and check the document.

        Raises:
            MetadataError: not JSON, a field is missing, unknown or of the wrong kind, or a value breaks its rule.
        """
        try:
            document = json.loads(text, parse_constant=_refuse_constant)
            _require(isinstance(document, dict), "the document is not a JSON object")
            return _CONVERTER.structure(document, cls)
        except (cattrs.BaseValidationError, ValueError, RecursionError) as error:
            raise MetadataError("; ".join(_reasons(error))) from error


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise MetadataError(reason)


def _refuse_constant(name: str) -> NoReturn:
    raise MetadataError(f"{name} is no JSON number")


def _exactly(value: object, kind: type) -> Any:
    """A value of the kind itself: a converted one would hide whatever wrote the document wrongly."""
    if type(value) is not kind:
        raise MetadataError(f"{value!r} is not of kind {kind.__name__}")
    return value


def _number(value: object, _: type) -> float:
    return float(value) if type(value) is int else float(_exactly(value, float))


def _reasons(error: BaseException) -> list[str]:
    if isinstance(error, cattrs.BaseValidationError):
        return cattrs.transform_error(error)
    return [str(error)]


_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
for _kind in (int, str):
    _CONVERTER.register_structure_hook(_kind, _exactly)
_CONVERTER.register_structure_hook(float, _number)
_CONVERTER.register_unstructure_hook(
    ModelMetadata, make_dict_unstructure_fn(ModelMetadata, _CONVERTER, _cattrs_omit_if_default=True)
)
