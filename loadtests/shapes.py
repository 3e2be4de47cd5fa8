"""How much comes when: each shape is a row of points, in shares of the run's time and of its peak."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final


@dataclass(frozen=True)
class Shape:
    """A course of load.

    Attributes:
        points: share of the time and share of the peak; straight lines between them, and jumps where two have one time.
        promise: key of `slo.PROMISES`: what must hold under it.
    """

    points: tuple[tuple[float, float], ...]
    promise: str


SHAPES: Final[dict[str, Shape]] = {
    # Doors open, the morning's peak, lunch, a lower afternoon.
    "clinic-day": Shape(((0, 0.1), (0.1, 0.5), (0.3, 1), (0.4, 1), (0.5, 0.4), (0.65, 0.7), (0.8, 0.6), (1, 0.1)), "steady"),
    # A bus arrives: from a fifth to the peak at once, and back.
    "burst": Shape(((0, 0.2), (0.4, 0.2), (0.4, 1), (0.6, 1), (0.6, 0.2), (1, 0.2)), "overloaded"),
    "soak": Shape(((0, 1), (1, 1)), "steady"),
    # From nothing up to what it cannot take: the peak has to lie beyond that.
    "ramp": Shape(((0, 0), (1, 1)), "overloaded"),
}


def level(shape: Shape, moment: float) -> float:
    """Share of the peak at a share of the time."""
    for (start, low), (end, high) in pairwise(shape.points):
        if start <= moment < end:
            return low + (high - low) * (moment - start) / (end - start)
    return shape.points[-1][1] if moment >= 1 else shape.points[0][1]
