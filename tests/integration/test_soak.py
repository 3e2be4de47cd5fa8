"""A soak of a real stack with one fault; `make soak` has them all."""

import errno
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from scripts.soak.batches import PASSES, fill_pool
from scripts.soak.course import Course, Pace
from scripts.soak.faults import FAULTS
from scripts.soak.memory import Growth
from scripts.soak.report import attribute, violations
from scripts.soak.stack import Stack
from tests import processes


@pytest.fixture(scope="module")
def soaked(tiny_base, tmp_path_factory):
    """What a soak found, and the processes that were watched in the end."""
    folder, disk = tmp_path_factory.mktemp("soak"), tmp_path_factory.mktemp("disk")
    (fault,) = (fault for fault in FAULTS if fault.name == "gateway worker killed")
    with Stack(folder, disk, tiny_base / "1", following=False) as stack:
        before = {worker.pid for worker in stack.workers()}
        soak = Course(stack, Pace(0.0, capacity=0.5, fault=0.0, rest=0.5, memory=0.5), [fault]).run()
    return soak, before


def test_a_killed_worker_cuts_what_it_held_and_nothing_else_is_lost(soaked):
    soak, _ = soaked

    # Fresh processes grow, a soak compares them after its warm-up; and how soon it is as before depends on the machine.
    found = violations(replace(soak, growth=[Growth("not compared", 1.0, 1.0)]))
    assert [told for told in found if "not as before" not in told and "nothing was broken that explains it" not in told] == []
    outcomes = Counter(one.outcome for one in attribute(soak.asked, soak.held))
    assert outcomes["answered"] > 100
    assert outcomes["cut"] <= len(soak.held)
    assert not outcomes["lost"]


def test_the_worker_is_replaced_and_every_process_is_watched(soaked):
    soak, before = soaked

    assert [one.name for one in soak.growth] == ["gateway worker 1", "gateway worker 2", "model server"]
    assert all(one.before > 10e6 for one in soak.growth)
    assert len(before) == 2


def test_cases_and_audit_are_compared_with_what_was_answered(soaked):
    soak, _ = soaked

    outcomes = Counter(one.outcome for one in soak.asked if one.what == "case")
    (told,) = filter(None, (re.search(r"holds (\d+) cases; (\d+) were answered", fact) for fact in soak.facts))
    held, answered = map(int, told.groups())
    assert answered == outcomes["answered"] > 0
    # The worker that was killed may have kept a case and not said so any more.
    assert answered <= held <= answered + outcomes["lost"]
    assert any("the chain holds" in fact for fact in soak.facts)


def test_the_pool_is_filled_by_batches_of_every_size(tiny_server):
    port, rest_port = tiny_server

    def asked():
        names = ("batching_session:input_batch_size_count", "batching_session:input_batch_size_sum")
        return [processes.model_server_total(rest_port, name) for name in names]

    before = asked()

    fill_pool(port, 0.0)

    assert [now - then for now, then in zip(asked(), before, strict=True)] == [PASSES * 2 * 32, PASSES * 2 * sum(range(33))]


def test_nothing_is_due_while_the_pool_is_filled(soaked):
    soak, _ = soaked
    (fault,) = (chapter for chapter in soak.chapters if chapter.is_fault)
    after = soak.chapters[soak.chapters.index(fault) + 1]

    assert (after.start - fault.end) * soak.rate > 5, "otherwise it could be chance"
    # It goes on a moment before the next chapter begins.
    assert [one for one in soak.asked if fault.end + 0.05 <= one.due < after.start - 0.05] == []
    assert [one for one in soak.asked if after.start <= one.due < after.end]


def test_a_full_disk_is_full_for_everybody_and_has_room_again_afterwards(tmp_path):
    isolated = ["unshare", "--mount", "--propagation", "private"]
    isolated += [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    script = """
import pathlib, sys
from scripts.soak.disk import filled, small_disk

with small_disk(pathlib.Path(sys.argv[1], "disk"), size_mb=3) as disk:
    there = disk / "there"
    there.write_bytes(bytes(10_000))
    with filled(disk):
        there.unlink()
        for _ in range(20):
            try:
                (disk / "new").write_bytes(bytes(100_000))
            except OSError as error:
                print(error.errno, end=" ")
    (disk / "new").write_bytes(bytes(1_000_000))
"""
    told = subprocess.run(
        [*isolated, sys.executable, "-c", script, tmp_path], cwd=processes.ROOT, capture_output=True, text=True, check=True
    )

    # Larger than what was freed: there is never room for it, whoever is quicker.
    assert told.stdout.split() == [str(errno.ENOSPC)] * 20
    assert not os.path.ismount(tmp_path / "disk")
