"""What glibc's malloc gives back of large buffers."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def use_one_heap(mmap_threshold: int, trim_threshold: int) -> None:
    """One heap instead of one a thread, and fixed thresholds; mallopt(3).

    By itself glibc raises the first threshold to the largest buffer that was freed, keeps what is smaller in the heaps of the
    threads that asked for it, and these hardly ever shrink: a process grows with each thread that once had a large one. To be
    called before threads are started. Other libcs have no such call: nothing happens.

    Args:
        mmap_threshold: bytes; a larger buffer is its own mapping, and gone when it is freed. At most 32 MiB.
        trim_threshold: bytes that may be free at the heap's end before it shrinks.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, mmap_threshold)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_threshold)
        libc.mallopt(_M_ARENA_MAX, 1)
