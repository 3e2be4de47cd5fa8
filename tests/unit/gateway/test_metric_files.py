import subprocess
import sys

from gateway.metric_files import BYTES, KINDS, reserve
from tests.processes import ROOT


def test_a_process_has_all_its_files_without_holes(tmp_path):
    reserve(tmp_path, 7)

    files = {path.name: path.stat() for path in tmp_path.iterdir()}
    assert files.keys() == {f"{kind}_7.db" for kind in KINDS}
    assert all(stat.st_size == BYTES and stat.st_blocks * 512 >= BYTES for stat in files.values())


def test_what_was_counted_under_the_same_number_stays(tmp_path):
    (tmp_path / "counter_7.db").write_bytes(b"counts")
    (tmp_path / "histogram_7.db").write_bytes(b"x" * 2 * BYTES)

    reserve(tmp_path, 7)

    assert (tmp_path / "counter_7.db").read_bytes() == b"counts" + bytes(BYTES - 6)
    assert (tmp_path / "histogram_7.db").stat().st_size == 2 * BYTES


def test_without_room_nothing_is_left_that_a_reader_would_stumble_over(tmp_path):
    (tmp_path / "histogram_7.db").write_bytes(b"counts")
    full = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({BYTES // 2}, -1))"
    reserving = "from pathlib import Path; from gateway.metric_files import reserve; reserve(Path(sys.argv[1]), 7)"

    done = subprocess.run(
        [sys.executable, "-c", f"{full}; {reserving}", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert "OSError" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["histogram_7.db"]
    assert (tmp_path / "histogram_7.db").read_bytes() == b"counts"
