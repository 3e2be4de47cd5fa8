"""What the record says became of cases: which were kept, and which were erased and must stay so."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.audit.record import START, Head, Record, read_line
from gateway.audit.verification import verify

_DONE: Final = "done"


class IncompleteHistory(Exception):
    """Erasures may stand in files that were not given, and nobody has said that they do not matter."""


@dataclass(frozen=True)
class CaseHistory:
    """Ids of cases, from the records of every machine.

    Attributes:
        kept: those that were kept, erased ones included.
        erased: those that were erased, by a person or by age. Ids are random and never given twice.
        known_from: of each machine, from which record on.
    """

    kept: frozenset[str]
    erased: frozenset[str]
    known_from: tuple[str, ...]


def read_history(chains: Iterable[Sequence[Path]], after: Iterable[Head] = ()) -> CaseHistory:
    """Read the chains, each that of one machine, the oldest file first.

    Args:
        chains: from record 1 on, but for those that go on after one of `after`.
        after: ends of older files that need not be read: they were full before the backup was made, so what they say was
            erased is not in it.

    Raises:
        IncompleteHistory: a chain has no beginning or no record, or an end belongs to none.
        BrokenChain: an erasure may be missing from it.
        OSError: a file cannot be read.
    """
    kept, erased, known_from = set[str](), set[str](), list[str]()
    allowed, used, empty = {START, *after}, {START}, list[Path]()
    for files in chains:
        first = next(_records(files), None)
        before = _end_before(first)
        # First, for a beginning that is damaged is not one that was moved away.
        verify(files, after=before, may_end_torn=True)
        if before not in allowed:
            raise IncompleteHistory(_no_beginning(files[0], before))
        used.add(before)
        if first is None:
            empty.append(files[0])
            continue
        known_from.append(f"record {first.head.sequence} of {first.document['time']}")
        for record in _records(files):
            if record.document["action"] == "keep_case":
                kept.update(record.document["cases"])
            elif record.document["action"] == "erase_case" and record.document["outcome"] == _DONE:
                erased.update(record.document["cases"])
    # A machine that has written nothing since its last file was full.
    ends = sorted(allowed - used, key=str)
    if len(empty) > len(ends):
        raise IncompleteHistory(f"{empty[-1]} holds no record: what was erased may stand in older files")
    if len(empty) < len(ends):
        raise IncompleteHistory(f"no audit record goes on after {ends[-1]}")
    known_from += [f"record {end.sequence + 1}, which is still to be written," for end in ends]
    return CaseHistory(frozenset(kept), frozenset(erased), tuple(known_from))


def _end_before(first: Record | None) -> Head:
    """What the first record that is there says of the one before it."""
    if first is None or first.head.sequence == START.sequence + 1:
        return START
    return Head(first.head.sequence - 1, first.previous)


def _no_beginning(file: Path, before: Head) -> str:
    return (
        f"{file} begins with record {before.sequence + 1}: give the files before it, too, or, where they were full before the "
        f"backup was made, --after {before.sequence}:HASH as `verify` has printed it for them"
    )


def _records(files: Sequence[Path]) -> Iterator[Record]:
    """Those that hold; what a crash has left between them belongs to nothing that was done."""
    for path in files:
        with path.open("rb") as file:
            for line in file:
                try:
                    yield read_line(line)
                except ValueError:
                    continue
