"""How many bytes a picture leaves behind, and sends along: counted, not timed. Used by capacity.py."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.audit.record import Event, Head, digest, write_line
from gateway.cases import database, migration
from gateway.cases.record import KeptCase, now
from gateway.cases.store import DatabaseStore
from gateway.settings import Settings
from serving.channel import predict_request
from serving.contract import IMAGE_SHAPE, STABLE_LABEL

_CASES = 400
_HEX = 32


@dataclass(frozen=True)
class Bytes:
    """Of one picture.

    Attributes:
        upload: the request from the browser.
        answer: to it, without its headers.
        call: the request to the model server.
        audit: its line in the audit record.
        case: its row in the case record with all indexes, when it is kept.
    """

    upload: int
    answer: int
    call: int
    audit: int
    case: int


def count(upload: int, answer: int) -> Bytes:
    """From what our own code writes."""
    event = Event(
        who="key:hospital-portal",
        action="classify",
        request_id=f"{1:032x}",
        outcome="benign",
        picture=digest(b"picture"),
        model_version=3,
    )
    line, _ = write_line(event, now(), Head(10**8, digest(b"previous")))
    call = predict_request(STABLE_LABEL, np.zeros(IMAGE_SHAPE, np.uint8)).ByteSize()
    return Bytes(upload=upload, answer=answer, call=call, audit=len(line), case=_case_bytes())


def _case_bytes() -> int:
    """Growth of a SQLite file; PostgreSQL's rows are of the same order, with a header of two dozen bytes each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cases.db"
        engine = database.connect(Settings(cases_database=f"sqlite:///{file}"))
        migration.upgrade(engine)
        store = DatabaseStore(engine)
        before = _size(file)
        for number in range(_CASES):
            sha256 = digest(f"{number}".encode())
            case = KeptCase(sha256[:_HEX], now(), "clinician@hospital", sha256, "benign", None, 0.123456789, 1.23456789, 3)
            store.keep(case, lambda: None)
        engine.dispose()
        return (_size(file) - before) // _CASES


def _size(file: Path) -> int:
    return sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*"))
