import json
import uuid

import pytest
import structlog

from gateway import logs


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    structlog.reset_defaults()


def fail(upload):
    raise RuntimeError("something unforeseen")


def test_a_traceback_says_where_and_holds_no_values(capsys):
    logs.configure()
    try:
        fail(b"PATIENT-NAME")
    except RuntimeError:
        structlog.get_logger().exception("unexpected error")

    line = capsys.readouterr().err
    assert json.loads(line)["exception"][0]["exc_value"] == "something unforeseen"
    assert '"fail"' in line
    assert "PATIENT-NAME" not in line


@pytest.mark.parametrize("given", [None, "", "short", "x" * 65, "a b c d e f", "<script>alert(1)", "-leading-hyphen"])
def test_an_id_that_is_not_harmless_is_replaced(given):
    assert uuid.UUID(logs.request_id(given)).version == 4


def test_a_harmless_id_is_kept():
    assert logs.request_id("Case_2026-11-25") == "Case_2026-11-25"
