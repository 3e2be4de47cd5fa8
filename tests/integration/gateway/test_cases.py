"""The case record on both databases, as the store sees it and as a hospital runs it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import requests
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from gateway.audit.verification import verify
from gateway.cases import database, migration
from gateway.cases.__main__ import main
from gateway.cases.record import Count, Cursor, Finding, KeptCase, Selection
from gateway.cases.store import DatabaseStore
from gateway.cases.tables import REVISION, Base
from gateway.errors import CaseNotFound, CasesUnavailable
from gateway.settings import Settings
from tests import processes
from tests.pictures import paint

NOON = datetime(2026, 1, 1, 12, 0, 0, 123_000, tzinfo=UTC)
DAY = timedelta(days=1)


def seal():
    """What is about to be done may be done."""


def refuse():
    raise PermissionError


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    with processes.postgres_server(tmp_path_factory.mktemp("postgres")) as (program, address, password):
        yield program, {"cases_database": address, "cases_password_file": str(password)}


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Settings of a database without tables."""
    if request.param == "sqlite":
        yield {"cases_database": f"sqlite:///{tmp_path}/cases.db"}
        return
    given = request.getfixturevalue("postgres")[1]
    yield given
    engine = database.connect(Settings(**given))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


@pytest.fixture
def engine(place):
    engine = database.connect(Settings(**place))
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine):
    migration.upgrade(engine)
    return DatabaseStore(engine)


def case(number, **facts):
    values = {
        "id": f"{number:032x}",
        "kept_at": NOON + number * timedelta(milliseconds=1),
        "kept_by": "key:clinic",
        "picture_sha256": f"{number:064x}",
        "label": "malignant",
        "reason": None,
        "malignant": 0.1 + 0.2,
        "none_score": -1.5,
        "model_version": 2,
    }
    return KeptCase(**values | facts)


def finding(histology=None, found_at=NOON, agrees=True):
    return Finding(found_at, "key:clinic", agrees, histology)


def test_what_was_kept_is_what_is_found(store):
    kept = case(1, label="none", reason="uncertain")
    store.keep(kept, seal)
    findings = (finding(), finding("benign", NOON + DAY, agrees=False))
    for one in findings:
        store.add_finding(kept.id, one, seal)

    assert store.find(kept.id) == case(1, label="none", reason="uncertain", findings=findings)


def test_what_cannot_be_recorded_is_not_done(store):
    store.keep(case(1), seal)

    for change in (
        lambda: store.keep(case(2), refuse),
        lambda: store.add_finding(case(1).id, finding(), refuse),
        lambda: store.erase(case(1).id, refuse),
        lambda: store.purge(NOON + DAY, lambda ids: refuse()),
    ):
        with pytest.raises(PermissionError):
            change()

    assert store.page(Selection(), 9) == [case(1)]


def test_pages_skip_and_repeat_nothing_when_cases_come_and_go(store):
    same_time = {number: case(number, kept_at=NOON) for number in range(1, 10)}
    for kept in same_time.values():
        store.keep(kept, seal)

    first = store.page(Selection(), 4)
    store.keep(case(100), seal)
    store.erase(first[-1].id, seal)
    last = first[-1]
    second = store.page(Selection(), 9, Cursor.parse(str(Cursor(last.kept_at, last.id))))

    assert [int(kept.id, 16) for kept in first + second] == [9, 8, 7, 6, 5, 4, 3, 2, 1]


def test_a_selection_takes_what_fits_all_of_it(store):
    store.keep(case(1), seal)
    store.keep(case(2, label="benign"), seal)
    store.keep(case(3, label="benign", model_version=3), seal)

    assert [kept.id for kept in store.page(Selection(label="benign"), 9)] == [case(3).id, case(2).id]
    assert [kept.id for kept in store.page(Selection("benign", 2), 9)] == [case(2).id]
    assert [kept.id for kept in store.page(Selection(picture_sha256=case(1).picture_sha256), 9)] == [case(1).id]


def test_what_is_erased_is_gone_with_its_findings(store, engine):
    store.keep(case(1), seal)
    store.add_finding(case(1).id, finding(), seal)

    store.erase(case(1).id, seal)

    for ask in (
        lambda: store.find(case(1).id),
        lambda: store.erase(case(1).id, seal),
        lambda: store.add_finding(case(1).id, finding(), seal),
    ):
        with pytest.raises(CaseNotFound):
            ask()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM findings")) == 0


def test_only_the_latest_histology_within_the_window_counts(store):
    for number in range(1, 6):
        store.keep(case(number, model_version=2 + number // 5), seal)
    store.add_finding(case(1).id, finding("benign", NOON), seal)
    store.add_finding(case(1).id, finding("malignant", NOON + DAY), seal)
    store.add_finding(case(1).id, finding(None, NOON + 2 * DAY), seal)
    store.add_finding(case(2).id, finding("malignant", NOON + DAY), seal)
    store.add_finding(case(3).id, finding(None, NOON + DAY), seal)
    store.add_finding(case(4).id, finding("malignant", NOON - DAY), seal)
    store.add_finding(case(5).id, finding("benign", NOON + DAY), seal)

    counts = store.count(NOON)

    assert sorted(counts, key=lambda count: count.model_version) == [
        Count(2, "malignant", "malignant", 2),
        Count(3, "malignant", "benign", 1),
    ]


def test_the_database_itself_refuses_what_is_no_case(store):
    with pytest.raises(CasesUnavailable, match="IntegrityError"):
        store.keep(case(1, label="perhaps"), seal)
    with pytest.raises(CasesUnavailable):
        store.keep(case(1, malignant=1.5), seal)
    store.keep(case(1), seal)
    with pytest.raises(CasesUnavailable):
        store.add_finding(case(1).id, finding("maybe"), seal)


def test_threads_write_side_by_side(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.keep(case(number), seal), range(60)))
        list(pool.map(lambda number: store.add_finding(case(number).id, finding(), seal), range(60)))

    assert sum(len(kept.findings) for kept in store.page(Selection(), 100)) == 60


def test_old_cases_are_purged(store):
    store.keep(case(1, kept_at=NOON - DAY), seal)
    store.keep(case(2), seal)
    sealed = []

    assert store.purge(NOON, sealed.append) == 1
    assert sealed == [(case(1).id,)]
    assert store.page(Selection(), 9) == [case(2)]


def test_the_migrations_make_the_tables_of_the_models(engine):
    migration.upgrade(engine)

    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrations_go_up_and_down(engine):
    assert database.current_revision(engine) is None
    migration.upgrade(engine)
    migration.upgrade(engine)
    assert database.current_revision(engine) == REVISION

    migration.downgrade(engine, "base")

    assert database.current_revision(engine) is None
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}


def test_a_database_of_another_revision_is_not_touched(engine):
    store = DatabaseStore(engine)
    with pytest.raises(CasesUnavailable, match="has revision None"):
        store.page(Selection(), 1)
    migration.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'other'"))
    with pytest.raises(CasesUnavailable, match="has revision other"):
        store.page(Selection(), 1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :known"), {"known": REVISION})

    assert store.page(Selection(), 1) == []


def test_a_case_from_picture_to_metrics_over_two_workers(place, tiny_server, tmp_path, monkeypatch, capsys):
    environment = {f"GATEWAY_{name.upper()}": value for name, value in place.items()}
    audit = tmp_path / "audit.jsonl"
    environment |= {"GATEWAY_WORKERS": "2", "GATEWAY_AUDIT_FILE": str(audit)}
    with processes.gateway(tiny_server[0], tmp_path, **environment) as (_, address):
        api = f"{address}/api/v1/cases"
        early = _keep(api, "malignant")
        assert (early.status_code, early.json()["type"]) == (503, "/problems/cases-unavailable")
        assert requests.get(f"{address}/health/ready", timeout=30).ok
        assert processes.read_metrics(address)["cases_up",] == 0
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert main(["upgrade"]) == 0

        locations = []
        for outcome, histology in [("malignant", "malignant"), ("malignant", "benign"), ("benign", "benign")]:
            kept = _keep(api, outcome)
            assert kept.status_code == 201
            locations.append(f"{address}{kept.headers['Location']}")
            found = {"agrees": outcome == histology, "histology": histology}
            assert requests.post(f"{locations[-1]}/findings", json=found, timeout=30).status_code == 201
        assert len(requests.get(api, timeout=30).json()["cases"]) == 3
        # Whichever worker answers, nothing is added up.
        for _ in range(6):
            metrics = processes.read_metrics(address)
            assert metrics["cases_up",] == 1
            assert (metrics["cases_sensitivity", "1"], metrics["cases_specificity", "1"]) == (1.0, 0.5)
            assert metrics["cases_with_histology", "benign", "malignant", "1"] == 1
        table = requests.get(f"{api}.csv", timeout=30)
        assert len(table.text.splitlines()) == 4
        assert requests.delete(locations[0], timeout=30).status_code == 204
        assert requests.get(locations[0], timeout=30).status_code == 404
        assert main(["purge", "--older-than", "1"]) == 0
        assert "\n0 cases kept before" in capsys.readouterr().out

    assert verify([audit]).records == 4 + 3 + 3 + 1 + 1 + 1


def test_a_database_that_goes_away_costs_the_cases_only(postgres, tiny_server, tmp_path):
    settings = {"GATEWAY_CASES_DATABASE": f"postgresql+psycopg://gateway@127.0.0.1:{processes.free_port()}/cases"}
    with processes.gateway(tiny_server[0], tmp_path, **settings) as (program, address):
        assert requests.get(f"{address}/api/v1/cases", timeout=30).status_code == 503
        assert processes.post_picture(address, paint()).ok
        assert processes.read_metrics(address)["cases_up",] == 0
        assert "cases-unavailable" in program.output


def test_the_file_of_sqlite_is_its_owners_alone(tmp_path):
    engine = database.connect(Settings(cases_database=f"sqlite:///{tmp_path}/cases.db"))
    migration.upgrade(engine)
    with engine.connect():
        rights = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    engine.dispose()

    assert "cases.db" in rights
    assert set(rights.values()) == {0o600}


def test_the_password_is_asked_for_and_told_nobody(postgres):
    wrong = {"GATEWAY_CASES_DATABASE": postgres[1]["cases_database"]}
    refused = _command("revision", **wrong)
    right = _command("revision", GATEWAY_CASES_PASSWORD_FILE=postgres[1]["cases_password_file"], **wrong)

    assert (refused.returncode, right.returncode) == (1, 0)
    assert "Traceback" not in refused.stderr
    assert "correct horse" not in refused.stderr + right.stdout + right.stderr


def _keep(api, outcome):
    return requests.post(api, files={"file": ("x.png", paint(outcome))}, timeout=30)


def _command(*arguments, **environment):
    command = [sys.executable, "-m", "gateway.cases", *arguments]
    return subprocess.run(
        command, cwd=processes.ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )
