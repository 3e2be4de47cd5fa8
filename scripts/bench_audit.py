"""`bench_audit.py [FOLDER]`: what a record of the audit costs on the disk of FOLDER (the working directory unless told).

Prints the time from an event to a record that the disk has, alone and with several writing at once, how many a second that is,
and beside it what the disk takes for the same bytes without any of our code.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from gateway.audit.record import START, Event, write_line
from gateway.audit.trail import FileAudit
from gateway.audit.verification import verify

RECORDS = 400
PROCESSES = 2
THREADS = 8
PICTURE_BYTES = 3_000_000
"""As a telephone writes it; its digest is part of the cost."""


def main(folder: Path) -> None:
    """Measure one after the other, each in a file of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-audit-", dir=folder) as name:
        path = Path(name)
        print(f"{RECORDS} records each, pictures of {PICTURE_BYTES / 1e6:.0f} MB, in {folder}")
        _print("the disk alone: one write and fsync of as many bytes", *_timed(lambda: _bare(path / "bare")))
        _print("one after the other", *_timed(lambda: _write(path / "one.jsonl", 1, RECORDS)))
        _print(f"{PROCESSES} processes with {THREADS} threads each", *_timed(lambda: _together(path / "many.jsonl")))
        records = verify([path / "many.jsonl"]).records
        print(f"the chain that they wrote together holds: {records} records")


def _timed(work: Callable[[], list[float]]) -> tuple[list[float], float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _print(what: str, seconds: list[float], whole_s: float) -> None:
    p50, p99 = np.percentile(np.array(seconds) * 1000, (50, 99))
    print(f"{what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {len(seconds) / whole_s:.0f} a second")


def _bare(path: Path) -> list[float]:
    line, _ = write_line(_event(), datetime.now(UTC), START)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    times = []
    for _ in range(RECORDS):
        started = time.perf_counter()
        os.write(file, line)
        os.fsync(file)
        times.append(time.perf_counter() - started)
    os.close(file)
    return times


def _write(path: Path, threads: int, records: int) -> list[float]:
    audit = FileAudit(path)

    def once(_: int) -> float:
        event = _event()
        started = time.perf_counter()
        audit.write(event)
        return time.perf_counter() - started

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(once, range(records)))


def _together(path: Path) -> list[float]:
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        parts = pool.starmap(_write, [(path, THREADS, RECORDS // PROCESSES)] * PROCESSES)
    return [seconds for part in parts for seconds in part]


def _event() -> Event:
    return Event("key:bench", "classify", "bench-0001", "benign", picture=bytes(PICTURE_BYTES), model_version=1)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
