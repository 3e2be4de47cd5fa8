"""One file of the corpus: how it is made, and what must become of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["everyday", "rare", "real", "hostile"]
"""What people send; what they may send; pictures out of a folder; what nobody should send."""

OK = 200


@dataclass(frozen=True)
class Recipe:
    """A file that is painted.

    Attributes:
        name: of the file; paints its own picture, for the name is the seed.
        kind: how often it is sent.
        make: gives its bytes.
        pixels: width times height.
        status, problem: of the answer that it must get; no problem with 200.
    """

    name: str
    kind: Kind
    make: Callable[[], bytes]
    pixels: int = 0
    status: int = OK
    problem: str | None = None
