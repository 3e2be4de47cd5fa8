"""Limits that two workers count together in a real Redis, and what becomes of them without it."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from tests import doors, processes

LIMIT = 5
CALLERS = 4
PASSWORD = "of-the-tests"  # noqa: S105


@contextmanager
def redis_server(folder, port):
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    command += ["--requirepass", PASSWORD, "--dir", str(folder)]
    with processes.running(command, folder / "redis.log") as program:
        program.wait_for(lambda: processes.is_listening(port))
        yield program


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "redis.password").write_text(f"{PASSWORD}\n")
    return {
        "GATEWAY_IDENTITY": "keys",
        "GATEWAY_API_KEYS_FILE": str(doors.write_keys(tmp_path / "keys.json", portal="classify", prometheus="read_metrics")),
        "GATEWAY_RATE_LIMIT": f"{LIMIT} per hour",
        "GATEWAY_WORKERS": "2",
    }


def ask(address, count):
    """Sends no picture, which is refused with 400 once the limit has let it through. Gives the statuses."""

    def once(_):
        return requests.post(f"{address}/api/v1/classifications", headers=doors.header(), timeout=30)

    with ThreadPoolExecutor(CALLERS) as pool:
        return sorted(answer.status_code for answer in pool.map(once, range(count)))


def read_metric(address, name):
    page = requests.get(f"{address}/metrics", headers=doors.header("prometheus"), timeout=30).text
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"dermserve_gateway_{name}"))


def test_workers_count_together_and_each_for_itself_when_the_store_is_lost(tiny_server, tmp_path, settings):
    port = processes.free_port()
    shared = {
        "GATEWAY_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        "GATEWAY_REDIS_PASSWORD_FILE": str(tmp_path / "redis.password"),
    }
    with processes.gateway(tiny_server[0], tmp_path, **settings, **shared) as (program, address):
        program.wait_for(lambda: read_metric(address, "breakers") == 4)
        with redis_server(tmp_path, port):
            assert ask(address, 20) == LIMIT * [400] + (20 - LIMIT) * [429]
            keys = subprocess.run(
                ["redis-cli", "-p", str(port), "-a", PASSWORD, "--no-auth-warning", "keys", "*"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            assert "key:portal" in keys
            assert doors.SECRET not in keys

        statuses = ask(address, 20)

        # Two workers, each with a limit of its own from here on. What was on its way when they noticed passes uncounted: in
        # each, the library counts again only for the first request that fails.
        assert set(statuses) == {400, 429}
        assert LIMIT <= statuses.count(400) < 2 * LIMIT + CALLERS
        assert 1 <= read_metric(address, "rate_limit_fallbacks_total") <= CALLERS
        assert "each process counts for itself" in program.output
        assert requests.get(f"{address}/health/ready", timeout=30).ok


def test_without_a_store_each_worker_counts_for_itself_and_addresses_are_those_before_our_proxy(
    tiny_server, tmp_path, settings
):
    with processes.gateway(tiny_server[0], tmp_path, GATEWAY_PROXIES="1", **settings) as (program, address):
        program.wait_for(lambda: read_metric(address, "breakers") == 4)
        statuses = ask(address, 40)

        def show_a_wrong_key(forwarded_for):
            headers = doors.header(key="x") | {"X-Forwarded-For": forwarded_for}
            return requests.get(f"{address}/metrics", headers=headers, timeout=30).status_code

        # Two workers with thirty each; what the client says itself, to the left of what the proxy adds, changes nothing.
        tries = [show_a_wrong_key(f"10.9.9.{number}, 10.0.0.1") for number in range(65)]
        elsewhere = [show_a_wrong_key(f"10.0.0.1, 10.0.0.{number}") for number in range(2, 22)]

    assert set(statuses) == {400, 429}
    assert LIMIT <= statuses.count(400) <= 2 * LIMIT
    assert tries[:30] == 30 * [401]
    assert 429 in tries[30:]
    assert elsewhere == 20 * [401]
