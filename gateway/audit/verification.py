"""Whether records are what was written: nothing changed, missing, added or moved."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.audit.record import START, Head, Record, digest, read_line


class BrokenChain(Exception):
    """The first line that is not what it was."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place}: {what}")


@dataclass(frozen=True)
class Report:
    """What an unbroken chain holds.

    Attributes:
        records: how many, those that recover included.
        torn: how many writes a crash has cut off; each is followed by a record that says so.
        first_time, last_time: of its records, empty without any.
        head: its end.
    """

    records: int
    torn: int
    first_time: str
    last_time: str
    head: Head


@dataclass
class _Line:
    """A line and where it stands."""

    place: str
    data: bytes


def verify(files: Sequence[Path], heads: Iterable[Head] = (), after: Head = START, *, may_end_torn: bool = False) -> Report:
    """Follow the chain through the files, in the order in which they are given.

    Args:
        files: the oldest first.
        heads: ends that were kept elsewhere; each has to be in the chain.
        after: the end of what came before the first file, where older files are no longer there.
        may_end_torn: leave out a last line without its end, which nobody got an answer for: a machine that has stopped in the
            middle of a write and has not written since.

    Raises:
        BrokenChain: with the first bad line.
        OSError: a file cannot be read.
    """
    missing = {head.sequence: head for head in heads}
    end, count, torn, times = after, 0, 0, ("", "")
    place = str(files[0])
    for place, record, is_repair in _records(files, may_end_torn=may_end_torn):
        if record.head.sequence != end.sequence + 1:
            raise BrokenChain(place, f"record {record.head.sequence} stands where {end.sequence + 1} has to")
        if record.previous != end.hash:
            raise BrokenChain(place, f"record {record.head.sequence} was not written after the one that stands before it")
        known = missing.pop(record.head.sequence, record.head)
        if known != record.head:
            raise BrokenChain(place, f"record {record.head.sequence} is not the one that {known} was taken from")
        end, count, torn = record.head, count + 1, torn + is_repair
        times = (times[0] or record.document["time"], record.document["time"])
    for head in missing.values():
        if head != after:
            raise BrokenChain(place, f"record {head.sequence} is missing, the last one is {end.sequence}")
    return Report(count, torn, *times, end)


def _records(files: Sequence[Path], *, may_end_torn: bool) -> Iterator[tuple[str, Record, bool]]:
    """Every record, and whether it says what a crash has left before it."""
    for path in files:
        torn: list[_Line] = []
        for line in _lines(path):
            try:
                record = read_line(line.data)
            except ValueError:
                torn.append(line)
                continue
            is_repair = record.document["action"] == "recovered"
            if is_repair != bool(torn):
                where, what = (torn[0].place, "not a record") if torn else (line.place, "what it has recovered from is missing")
                raise BrokenChain(where, what)
            if torn and record.document["reason"] != digest(b"".join(bad.data for bad in torn)[:-1]):
                raise BrokenChain(torn[0].place, "neither a record nor what the next one has recovered from")
            torn = []
            yield line.place, record, is_repair
        is_end = may_end_torn and path == files[-1] and len(torn) == 1 and not torn[0].data.endswith(b"\n")
        if torn and not is_end:
            raise BrokenChain(torn[0].place, "not a record")


def _lines(path: Path) -> Iterator[_Line]:
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            yield _Line(f"{path}, line {number}", data)
