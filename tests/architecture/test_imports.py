import os
import subprocess
import sys

import pytest

from tests.processes import ROOT

# Everything the process loads, the composition root included; the model server it names need not be there.
LOADED = """
import sys
import gateway.wsgi
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def load(**environment):
    run = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


@pytest.fixture(scope="module")
def loaded():
    return load()


def test_the_gateway_loads_no_tensorflow(loaded):
    assert not loaded & {"tensorflow", "tensorflow_serving", "keras", "training", "sklearn", "matplotlib"}


def test_the_gateway_loads_nothing_for_what_is_off(loaded):
    assert not loaded & {"authlib", "joserfc", "flask_limiter", "limits", "redis"}


def test_the_gateway_loads_what_it_needs(loaded):
    """Otherwise the test above would prove nothing."""
    assert {"flask", "grpc", "PIL", "gateway", "serving"} <= loaded


def test_only_a_case_record_loads_a_database_and_serving_never_loads_alembic(loaded, tmp_path):
    with_cases = load(GATEWAY_CASES_DATABASE=f"sqlite:///{tmp_path}/cases.db")

    assert not loaded & {"sqlalchemy", "alembic", "psycopg", "sqlite3"}
    assert with_cases & {"sqlalchemy", "alembic", "psycopg"} == {"sqlalchemy"}


def test_what_is_off_is_not_loaded(loaded):
    assert not loaded & {"opentelemetry", "authlib", "flask_limiter", "redis", "requests"}
