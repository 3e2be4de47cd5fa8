"""A small disk of its own for what a gateway writes, so that filling it fills nothing else."""

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE_MB = 192
"""Logs, audit record, cases and metrics of half an hour take less than half of it."""

_AGAIN_S = 0.1
_BLOCKS = (1 << 20, 1 << 12)


class DiskError(Exception):
    """It cannot be mounted."""


@contextmanager
def small_disk(folder: Path, size_mb: int = SIZE_MB) -> Iterator[Path]:
    """Mount memory there. `scripts/soak.sh` runs us in a mount namespace, so that nobody else sees it and nothing stays behind.

    Raises:
        DiskError: we may not.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "soak", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise DiskError(f"{mounted.stderr.strip()}; run it by `make soak`, in a namespace of its own")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607  (the system's own)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Not a byte is free, whatever the others give back meanwhile."""
    ballast = folder / "ballast"
    stopped = threading.Event()
    with ballast.open("wb", buffering=0) as file:
        fill(file.fileno())
        thread = threading.Thread(target=_keep_full, args=(file.fileno(), stopped))
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            ballast.unlink()


def fill(file: int) -> None:
    """Write until there is no room."""
    for size in _BLOCKS:
        try:
            while os.write(file, b"\0" * size):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _keep_full(file: int, stopped: threading.Event) -> None:
    while not stopped.wait(_AGAIN_S):
        fill(file)
