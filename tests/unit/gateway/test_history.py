import pytest

from gateway.audit.history import CaseHistory, read_history
from gateway.audit.record import Event
from gateway.audit.trail import FileAudit
from gateway.audit.verification import BrokenChain


def write(path, *events, **options):
    audit = FileAudit(path, **options)
    for action, outcome, *cases in events:
        audit.write(Event("key:clinic", action, "request-1", outcome, cases=tuple(cases)))
    return path


def test_what_was_kept_and_what_was_erased_is_read_from_every_machine(tmp_path):
    one = write(tmp_path / "a", ("keep_case", "benign", "1"), ("read_cases", "done", "1", "2"), ("erase_case", "done", "1"))
    purged = write(tmp_path / "b", ("keep_case", "malignant", "2"), ("erase_case", "done", "3", "4"))

    assert read_history([[one], [purged]]) == CaseHistory(frozenset("12"), frozenset("134"))


def test_an_erasure_that_was_refused_is_none(tmp_path):
    path = write(tmp_path / "a", ("keep_case", "benign", "1"), ("erase_case", "cases-unavailable", "1"))

    assert read_history([[path]]).erased == frozenset()


def test_older_files_may_be_elsewhere_and_none_between(tmp_path):
    write(tmp_path / "a", *(("erase_case", "done", str(number)) for number in range(5)), max_bytes=1)
    files = [*sorted(tmp_path.glob("a.0*")), tmp_path / "a"]

    assert read_history([files[2:]]).erased == frozenset("234")
    with pytest.raises(BrokenChain):
        read_history([[files[0], *files[2:]]])


def test_what_a_crash_has_torn_at_the_end_was_not_done(tmp_path):
    path = write(tmp_path / "a", ("erase_case", "done", "1"), ("erase_case", "done", "2"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert read_history([[path]]).erased == frozenset("1")

    # A whole line that is none of ours comes from no crash, and neither does one in the middle.
    for broken in (whole[:-10] + b"\n", whole[10:]):
        path.write_bytes(broken)
        with pytest.raises(BrokenChain):
            read_history([[path]])


def test_a_sealed_crash_is_passed_over(tmp_path):
    path = write(tmp_path / "a", ("erase_case", "done", "1"), ("erase_case", "done", "2"))
    path.write_bytes(path.read_bytes()[:-10])
    write(path, ("erase_case", "done", "3"))

    assert read_history([[path]]).erased == frozenset("13")


def test_an_empty_record_knows_nothing(tmp_path):
    (tmp_path / "a").touch()

    assert read_history([[tmp_path / "a"]]) == CaseHistory(frozenset(), frozenset())
