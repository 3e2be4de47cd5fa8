import dataclasses
import datetime
import json
import stat

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from gateway import api_keys, key_file
from gateway.api_keys import ApiKeys
from gateway.key_file import KeyFileError
from tests.doors import BEGINS, ENDS, SECRET, write_keys

TOKEN = f"dsk_portal_{SECRET}"
SECOND = datetime.timedelta(seconds=1)


@pytest.fixture
def path(tmp_path):
    return write_keys(tmp_path / "keys.json", portal="classify")


def run(capsys, *arguments):
    code = api_keys.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_a_key_says_whose_it_is_and_what_it_may(path):
    identity = ApiKeys(path).identify(TOKEN)

    assert (identity.name, identity.kind, identity.permissions) == ("key:portal", "key", {"classify"})


@pytest.mark.parametrize(
    "token",
    [
        "",
        "dsk_",
        "dsk__",
        "dsk_portal",
        "dsk_portal_",
        f"dsk_other_{SECRET}",
        f"portal_{SECRET}",
        SECRET,
        TOKEN[:-1],
        TOKEN + "s",
    ],
)
def test_anything_else_is_nobodys(path, token):
    assert ApiKeys(path).identify(token) is None


@pytest.mark.parametrize(("now", "holds"), [(BEGINS - SECOND, False), (BEGINS, True), (ENDS - SECOND, True), (ENDS, False)])
def test_a_key_holds_from_its_first_moment_until_before_its_last(path, now, holds):
    assert bool(ApiKeys(path, lambda: now).identify(TOKEN)) == holds


def test_a_key_that_was_taken_back_holds_no_longer(path):
    (key,) = key_file.load(path).values()
    key_file.save(path, [dataclasses.replace(key, revoked=BEGINS + SECOND)])

    assert ApiKeys(path, lambda: BEGINS).identify(TOKEN)
    assert ApiKeys(path, lambda: BEGINS + SECOND).identify(TOKEN) is None


def test_the_file_is_read_again_when_it_changes_and_two_keys_hold_side_by_side(path):
    keys = ApiKeys(path)
    next_token = TOKEN.replace("portal", "portal-2")
    assert keys.identify(next_token) is None

    write_keys(path, **{"portal": "classify", "portal-2": "classify"})
    assert keys.identify(TOKEN)
    assert keys.identify(next_token)
    write_keys(path, **{"portal-2": "classify"})
    assert keys.identify(TOKEN) is None


@pytest.mark.parametrize("breakage", ["not json", '{"keys": [{}]}', '{"keys": [{"id": "portal"}]}', "[]", '{"keys": 1}', None])
def test_a_broken_file_keeps_the_old_keys_and_is_told_once(path, breakage):
    keys = ApiKeys(path)
    if breakage is None:
        path.unlink()
    else:
        path.write_text(breakage)
    failed = REGISTRY.get_sample_value("dermserve_gateway_key_file_reads_total", {"result": "failed"}) or 0

    with capture_logs() as lines:
        assert keys.identify(TOKEN)
        assert keys.identify(TOKEN)
        with pytest.raises(KeyFileError):
            ApiKeys(path)

    assert [line["log_level"] for line in lines] == ["error"]
    assert REGISTRY.get_sample_value("dermserve_gateway_key_file_reads_total", {"result": "failed"}) == failed + 1
    assert SECRET not in str(lines)
    write_keys(path, other="classify")
    assert keys.identify(TOKEN) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "Portal"),
        ("id", "a_b"),
        ("sha256", SECRET),
        ("permissions", []),
        ("permissions", ["all"]),
        ("expires", "2030-01-01T00:00:00"),
        ("expires", "soon"),
        ("note", "of Budi"),
    ],
)
def test_a_wrong_entry_is_refused(path, field, value):
    document = json.loads(path.read_text())
    document["keys"][0][field] = value
    path.write_text(json.dumps(document))

    with pytest.raises(KeyFileError):
        key_file.load(path)


def test_an_id_stands_in_the_file_once(path):
    document = json.loads(path.read_text())
    path.write_text(json.dumps({"keys": document["keys"] * 2}))

    with pytest.raises(KeyFileError, match="twice"):
        key_file.load(path)


def test_the_command_makes_keys_that_hold_and_keeps_only_their_hash(tmp_path, capsys):
    path = tmp_path / "keys.json"
    code, token, told = run(
        capsys, "create", "--id", "portal", "--permissions", "classify", "read_metrics", "--days", "1", "--file", path
    )

    assert code == 0
    assert "Shown only now" in told
    assert token.strip().partition("_")[2].partition("_")[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert ApiKeys(path).identify(token.strip()).permissions == {"classify", "read_metrics"}

    code, other, _ = run(capsys, "create", "--id", "portal-2", "--permissions", "classify", "--file", path)
    keys = ApiKeys(path)
    assert keys.identify(token.strip())
    assert keys.identify(other.strip())
    assert run(capsys, "revoke", "--id", "portal", "--file", path)[0] == 0
    assert keys.identify(token.strip()) is None
    assert keys.identify(other.strip())
    _, listed, _ = run(capsys, "list", "--file", path)
    assert "revoked" in listed.splitlines()[0]
    assert "holds" in listed.splitlines()[1]


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    path = tmp_path / "keys.json"
    create = ("create", "--permissions", "classify", "--file", path, "--id")

    assert run(capsys, "list", "--file", path)[0] == 1
    assert run(capsys, *create, "Not_An_Id")[0] == 1
    assert run(capsys, "create", "--permissions", "classify", "--id", "portal", "--file", tmp_path / "no" / "keys.json")[0] == 1
    assert not path.exists()
    assert run(capsys, *create, "portal")[0] == 0
    before = path.read_bytes()
    code, token, told = run(capsys, *create, "portal")
    assert (code, token) == (1, "")
    assert "portal-2" in told
    assert run(capsys, "revoke", "--id", "other", "--file", path)[0] == 1
    path.write_text("broken")
    assert run(capsys, *create, "portal-2")[0] == 1
    assert path.read_text() == "broken" != before
    for days in ("0", "367", "x"):
        with pytest.raises(SystemExit):
            run(capsys, *create, "portal-3", "--days", days)
    capsys.readouterr()


def test_secrets_are_256_random_bits():
    secrets = {key_file.new_secret() for _ in range(100)}

    assert len(secrets) == 100
    assert {len(secret) for secret in secrets} == {43}
