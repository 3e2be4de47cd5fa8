"""What the record says became of cases: which were kept, and which were erased and must stay so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.audit.record import START, Head, Record, read_line
from gateway.audit.verification import verify

_DONE: Final = "done"


@dataclass(frozen=True)
class CaseHistory:
    """Ids of cases, from the records of every machine.

    Attributes:
        kept: those that were kept, erased ones included.
        erased: those that were erased, by a person or by age. Ids are random and never given twice.
    """

    kept: frozenset[str]
    erased: frozenset[str]


NOTHING_KNOWN: Final = CaseHistory(frozenset(), frozenset())


def read_history(chains: Iterable[Sequence[Path]]) -> CaseHistory:
    """Read the chains, each that of one machine, the oldest file first; older files may be missing.

    Raises:
        BrokenChain: an erasure may be missing from it.
        OSError: a file cannot be read.
    """
    kept, erased = set[str](), set[str]()
    for files in chains:
        verify(files, after=_end_before(files), may_end_torn=True)
        for path in files:
            for record in _records(path):
                if record.document["action"] == "keep_case":
                    kept.update(record.document["cases"])
                elif record.document["action"] == "erase_case" and record.document["outcome"] == _DONE:
                    erased.update(record.document["cases"])
    return CaseHistory(frozenset(kept), frozenset(erased))


def _end_before(files: Sequence[Path]) -> Head:
    """What the first record of all says of the one before it."""
    for path in files:
        for record in _records(path):
            return Head(record.head.sequence - 1, record.previous)
    return START


def _records(path: Path) -> Iterable[Record]:
    """Those that hold; what a crash has left between them belongs to nothing that was done."""
    with path.open("rb") as file:
        for line in file:
            try:
                yield read_line(line)
            except ValueError:
                continue
