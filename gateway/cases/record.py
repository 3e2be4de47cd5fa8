"""What a case and its findings are, and what is asked of their store. Knows no database."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Protocol, get_args

from gateway.decision import Label, Reason
from gateway.errors import InvalidCaseRequest

Histology = Literal["benign", "malignant"]
LABELS: Final[tuple[Label, ...]] = get_args(Label)
HISTOLOGIES: Final[tuple[Histology, ...]] = get_args(Histology)

MAX_PAGE: Final = 100
_CURSOR: Final = re.compile(r"([0-9]{1,14})\.([0-9a-f]{32})")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_VERSION: Final = re.compile(r"[0-9]{1,18}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Finding:
    """What somebody found out later. No free text: what people write into one is patient data.

    Attributes:
        found_at: when it was entered.
        found_by: identity's name.
        agrees: whether they agree with the outcome.
        histology: None as long as there is none.
    """

    found_at: datetime
    found_by: str
    agrees: bool
    histology: Histology | None

    @classmethod
    def read(cls, found_by: str, agrees: object, histology: object) -> "Finding":
        """Take what somebody has entered, now.

        Raises:
            InvalidCaseRequest: it is none of the values that there are.
        """
        if not isinstance(agrees, bool):
            raise InvalidCaseRequest("agrees is neither true nor false")
        known = next((known for known in HISTOLOGIES if known == histology), None)
        if known != histology:
            raise InvalidCaseRequest(f"histology is neither null nor one of {', '.join(HISTOLOGIES)}")
        return cls(now(), found_by, agrees, known)


@dataclass(frozen=True)
class KeptCase:
    """One outcome that was kept.

    Attributes:
        id: its own, random; says nothing of the patient.
        kept_at: when, to the millisecond.
        kept_by: identity's name.
        picture_sha256: of the upload; who has the picture finds its case.
        label, reason, malignant, none_score, model_version: of the classification.
        findings: the oldest first.
    """

    id: str
    kept_at: datetime
    kept_by: str
    picture_sha256: str
    label: Label
    reason: Reason | None
    malignant: float
    none_score: float
    model_version: int
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Cursor:
    """The last case of a page: the next page begins behind it."""

    kept_at: datetime
    id: str

    def __str__(self) -> str:
        return f"{(self.kept_at - _EPOCH) // _MILLISECOND}.{self.id}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Read what `str` has written.

        Raises:
            InvalidCaseRequest: it is none of ours.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidCaseRequest("the cursor is none that was given out")
        return cls(_EPOCH + int(match[1]) * _MILLISECOND, match[2])


@dataclass(frozen=True)
class Selection:
    """Which cases; None takes all."""

    label: Label | None = None
    model_version: int | None = None
    picture_sha256: str | None = None

    @classmethod
    def read(cls, label: str | None, model_version: str | None, picture_sha256: str | None) -> "Selection":
        """Take what somebody has asked for.

        Raises:
            InvalidCaseRequest: that is no label, no number or no digest.
        """
        known = next((known for known in LABELS if known == label), None)
        if known != label:
            raise InvalidCaseRequest(f"label is none of {', '.join(LABELS)}")
        if model_version is not None and not _VERSION.fullmatch(model_version):
            raise InvalidCaseRequest("model_version is not a number")
        if picture_sha256 is not None and not _SHA256.fullmatch(picture_sha256):
            raise InvalidCaseRequest("picture_sha256 is not 64 hexadecimal digits")
        return cls(known, None if model_version is None else int(model_version), picture_sha256)


@dataclass(frozen=True)
class Count:
    """How many cases of a version were called so and turned out so."""

    model_version: int
    label: Label
    histology: Histology
    cases: int


Sealed = Callable[[], None]
"""Called when a change is sure to be possible and before it is made: what it raises undoes the change."""


class CaseStore(Protocol):
    """Keeps cases. Every method raises `CasesUnavailable` when the database does not answer or is of another revision."""

    def keep(self, case: KeptCase, seal: Sealed) -> None:
        """Add a case."""

    def find(self, id: str) -> KeptCase:  # noqa: A002
        """One case.

        Raises:
            CaseNotFound: there is none.
        """

    def page(self, selection: Selection, limit: int, after: Cursor | None = None) -> list[KeptCase]:
        """The newest first, those behind the cursor."""

    def add_finding(self, id: str, finding: Finding, seal: Sealed) -> None:  # noqa: A002
        """Add to what was found before.

        Raises:
            CaseNotFound: there is no such case.
        """

    def erase(self, id: str, seal: Sealed) -> None:  # noqa: A002
        """Remove a case and its findings for good.

        Raises:
            CaseNotFound: there is none.
        """

    def count(self, since: datetime) -> list[Count]:
        """Cases by their latest finding with histology, where it was entered since then."""


def now() -> datetime:
    """To the millisecond: as much as a cursor holds."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
