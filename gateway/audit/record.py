"""One record: what it holds, its hash, its line."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal

Action = Literal[
    "classify",
    "replay",
    "keep_case",
    "read_cases",
    "write_finding",
    "export_cases",
    "erase_case",
    "restore_cases",
    "sign_in",
    "sign_out",
    "refused",
    "recovered",
]
"""`recovered` is the trail's own: the bytes before it are what a crash has left of a record that nobody got an answer for."""

_KEYS: Final = {
    *("sequence", "time", "who", "action", "request", "picture", "cases", "outcome", "reason", "model_version"),
    *("previous", "hash"),
}
_HEAD: Final = re.compile(r"(\d{1,18}):([0-9a-f]{64})")


@dataclass(frozen=True)
class Event:
    """What happened.

    Attributes:
        who: the identity's name.
        action: what they did, or tried.
        request_id: of the request, as in its log line.
        outcome: a label, a problem's slug, or `done`.
        reason: of the label `none`; of a replay the id under which the picture was answered first.
        picture: bytes of the upload, of which only their SHA-256 is written, or that digest itself.
        model_version: that answered.
        cases: every case that was shown or changed.
    """

    who: str
    action: Action
    request_id: str
    outcome: str
    reason: str | None = None
    picture: bytes | str | None = field(default=None, repr=False)
    model_version: int | None = None
    cases: tuple[str, ...] = ()

    @cached_property
    def picture_sha256(self) -> str | None:
        """Takes milliseconds for a large picture, once."""
        return digest(self.picture) if isinstance(self.picture, bytes) else self.picture


@dataclass(frozen=True)
class Head:
    """The end of a chain: kept elsewhere, it says what the chain has to hold up to there."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Read what `str` has written.

        Raises:
            ValueError: it is not SEQUENCE:HASH.
        """
        match = _HEAD.fullmatch(text)
        if match is None:
            raise ValueError(f"not SEQUENCE:HASH: {text!r}")
        return cls(int(match[1]), match[2])


START: Final = Head(0, "0" * 64)
"""What the first record of all is chained to."""


@dataclass(frozen=True)
class Record:
    """A line that was read back and holds what its own hash says.

    Attributes:
        document: the whole of it.
        head: the chain's end when it was the last one.
        previous: hash of the record before it.
    """

    document: dict[str, Any]
    head: Head
    previous: str


def write_line(event: Event, time: datetime, previous: Head) -> tuple[bytes, Head]:
    """The line of the record that follows on `previous`, and the chain's new end."""
    document: dict[str, Any] = {
        "sequence": previous.sequence + 1,
        "time": time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "who": event.who,
        "action": event.action,
        "request": event.request_id,
        "picture": event.picture_sha256,
        "cases": list(event.cases),
        "outcome": event.outcome,
        "reason": event.reason,
        "model_version": event.model_version,
        "previous": previous.hash,
    }
    document["hash"] = digest(_canonical(document))
    return _canonical(document) + b"\n", Head(document["sequence"], document["hash"])


def read_line(line: bytes) -> Record:
    """Check a line by itself: written as we write, nothing missing, nothing more, its hash its own.

    Raises:
        ValueError: it is not a record, or no longer.
    """
    try:
        document = json.loads(line)
    except RecursionError as error:
        raise ValueError("not a record") from error
    if not isinstance(document, dict) or document.keys() != _KEYS or _canonical(document) + b"\n" != line:
        raise ValueError("not a record as it was written")
    content = {key: value for key, value in document.items() if key != "hash"}
    if digest(_canonical(content)) != document["hash"]:
        raise ValueError("its hash is another")
    return Record(document, Head(document["sequence"], document["hash"]), document["previous"])


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal: of pictures, records and what a crash has left."""
    return hashlib.sha256(data).hexdigest()


def _canonical(document: dict[str, Any]) -> bytes:
    """The one way to write a document: sorted, without spaces, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
