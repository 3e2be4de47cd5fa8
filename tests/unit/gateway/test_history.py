import pytest

from gateway.audit.history import IncompleteHistory, read_history
from gateway.audit.record import START, Event, Head
from gateway.audit.trail import FileAudit
from gateway.audit.verification import BrokenChain, verify


def write(path, *events, **options):
    audit = FileAudit(path, **options)
    for action, outcome, *cases in events:
        audit.write(Event("key:clinic", action, "request-1", outcome, cases=tuple(cases)))
    return path


def test_what_was_kept_and_what_was_erased_is_read_from_every_machine(tmp_path):
    one = write(tmp_path / "a", ("keep_case", "benign", "1"), ("read_cases", "done", "1", "2"), ("erase_case", "done", "1"))
    purged = write(tmp_path / "b", ("keep_case", "malignant", "2"), ("erase_case", "done", "3", "4"))

    history = read_history([[one], [purged]])

    assert (history.kept, history.erased) == (frozenset("12"), frozenset("134"))
    assert [text[:12] for text in history.known_from] == ["record 1 of "] * 2


def test_an_erasure_that_was_refused_is_none(tmp_path):
    path = write(tmp_path / "a", ("keep_case", "benign", "1"), ("erase_case", "cases-unavailable", "1"))

    assert read_history([[path]]).erased == frozenset()


def full_files(folder):
    """Five erasures, a file for each."""
    write(folder / "a", *(("erase_case", "done", str(number)) for number in range(5)), max_bytes=1)
    return [*sorted(folder.glob("a.0*")), folder / "a"]


def test_older_files_may_be_elsewhere_only_if_somebody_says_so_and_none_between(tmp_path):
    files = full_files(tmp_path)
    end = verify(files[:2]).head

    with pytest.raises(IncompleteHistory, match="begins with record 3: "):
        read_history([files[2:]])
    history = read_history([files[2:]], [end])
    assert history.erased == frozenset("234")
    assert history.known_from[0].startswith("record 3 of 2")
    for missing in ([files[0], *files[2:]], [*files[2:3], *files[4:]]):
        with pytest.raises(BrokenChain):
            read_history([missing], [end])


def test_the_end_that_is_named_is_that_of_the_files_before(tmp_path):
    files = full_files(tmp_path)

    for other in (Head(2, "0" * 64), verify(files[:1]).head, START):
        with pytest.raises(IncompleteHistory, match="begins with record 3: "):
            read_history([files[2:]], [other])
    # It was meant for a machine that was forgotten.
    with pytest.raises(IncompleteHistory, match=r"no audit record goes on after 2:"):
        read_history([files], [verify(files[:2]).head])


def test_each_machine_needs_its_own(tmp_path):
    machines = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        machines.append(full_files(tmp_path / name))
    ends = [verify(files[:2]).head for files in machines]

    with pytest.raises(IncompleteHistory, match="two"):
        read_history([files[2:] for files in machines], ends[:1])
    assert len(read_history([files[2:] for files in machines], reversed(ends)).known_from) == 2


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


def test_an_empty_record_is_not_taken_for_one_without_erasures(tmp_path):
    files = full_files(tmp_path)
    (tmp_path / "empty").touch()
    torn = tmp_path / "torn"
    torn.write_bytes(files[0].read_bytes()[:-10])

    for empty in (tmp_path / "empty", torn):
        with pytest.raises(IncompleteHistory, match="holds no record"):
            read_history([[empty]])
        with pytest.raises(IncompleteHistory, match="holds no record"):
            read_history([files, [empty]])
        history = read_history([[empty]], [verify(files).head])
        assert history.erased == frozenset()
        assert history.known_from == ("record 6, which is still to be written,",)
