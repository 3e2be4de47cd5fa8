"""When another answer is still the same. Needs nothing: it also runs beside the engines."""

from dataclasses import dataclass

MALIGNANT_TOLERANCE = 0.02
NONE_SCORE_TOLERANCE = 0.2
"""The released graph computes in bfloat16. The same graph in float32 is away from it by less than a third of these on the
pictures that are asked; a gateway's golden picture, which is to notice a wrong model, may be away by 0.05 and 0.5."""


@dataclass(frozen=True)
class Answer:
    """To one picture.

    Attributes:
        malignant: the calibrated probability.
        none_score: None from a way that computes none.
    """

    malignant: float
    none_score: float | None = None


class WrongAnswerError(Exception):
    """A contestant does not answer what the released version does."""


def check(name: str, answer: Answer, expected: Answer) -> None:
    """Hold an answer to the right one.

    Raises:
        WrongAnswerError: it differs by more than the tolerance. NaN differs.
    """
    compared = [("malignant probability", answer.malignant, expected.malignant, MALIGNANT_TOLERANCE)]
    if answer.none_score is not None and expected.none_score is not None:
        compared.append(("none score", answer.none_score, expected.none_score, NONE_SCORE_TOLERANCE))
    for what, got, right, tolerance in compared:
        if not abs(got - right) <= tolerance:
            raise WrongAnswerError(f"{what} of the picture {name} is {got:.4f}; {right:.4f} is right, within {tolerance:g}")
