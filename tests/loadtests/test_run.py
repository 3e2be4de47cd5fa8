"""Whole runs, as `make load` makes them. They are begun at once, for they wait more than they compute."""

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest

from loadtests import corpus
from loadtests.visits import MIX
from tests import doors, processes
from tests.processes import BUSY, ROOT

LOCUST = [sys.executable, "-m", "locust", "--config", "loadtests/locust.conf"]


class Runs:
    """Load tests under way."""

    def __init__(self, folder, files):
        self._folder = folder
        self._files = files
        self._running = {}

    def begin(self, name, host, *options):
        reports = ["--reports", str(self._folder / name), "--corpus", str(self._files)]
        self._running[name] = subprocess.Popen(
            [*LOCUST, "--host", host, *reports, *options],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, name):
        """Exit code, output, and the report if there is one."""
        out, err = self._running[name].communicate(timeout=120)
        report = self._folder / name / "report.json"
        return self._running[name].returncode, out + err, json.loads(report.read_text()) if report.exists() else {}

    def kill(self):
        for process in self._running.values():
            process.kill()
            process.wait(20)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    corpus.write(folder, max_megapixels=0.5)
    return folder


def write_scrape_config(folder, address):
    path = folder / "prometheus.yml"
    target = address.removeprefix("http://")
    path.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 400ms}\n"
        f"scrape_configs: [{{job_name: gateway, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    return path


@contextmanager
def gateway_with_keys(model_port, folder):
    """Gives its address; the file `key` of the folder has a key that may classify."""
    keys = doors.write_keys(folder / "keys.json", load="classify")
    (folder / "key").write_text(f"{doors.token('load')}\n")
    settings = {"GATEWAY_IDENTITY": "keys", "GATEWAY_API_KEYS_FILE": str(keys), "GATEWAY_GOLDEN_PERIOD_S": "0"}
    with processes.gateway(model_port, folder, **settings) as (_, address):
        yield address


@pytest.fixture(scope="module")
def runs(files, tiny_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    started = Runs(folder, files)
    with ExitStack() as stack:
        stack.callback(started.kill)
        address = stack.enter_context(gateway_with_keys(tiny_server[0], folder))
        key = ["--key-file", str(folder / "key")]
        watched = stack.enter_context(
            processes.gateway(tiny_server[0], tmp_path_factory.mktemp("watched"), GATEWAY_GOLDEN_PERIOD_S="0")
        )[1]
        config, port = write_scrape_config(folder, watched), processes.free_port()
        data = f"--storage.tsdb.path={folder / 'prometheus'}"
        prometheus = ["prometheus", f"--config.file={config}", data, f"--web.listen-address=127.0.0.1:{port}"]
        program = stack.enter_context(processes.running(prometheus, folder / "prometheus.log"))
        program.wait_for(lambda: processes.is_listening(port))

        paced_folder = tmp_path_factory.mktemp("paced")
        _, slow_port = stack.enter_context(processes.paced_server(paced_folder, 1, 1.0))
        few = {"GATEWAY_WORKERS": "1", "GATEWAY_THREADS": "1", "GATEWAY_MAX_WAITING": "1"}
        slow = stack.enter_context(processes.gateway(slow_port, paced_folder, **few))[1]

        spoilt = {}
        for fault in ("wrong", "lost", "none"):
            spoilt[fault] = processes.free_port()
            command = [sys.executable, "tests/loadtests/broken_gateway.py", str(spoilt[fault]), fault]
            program = stack.enter_context(processes.running(command, folder / f"{fault}.log"))
            program.wait_for(lambda port=spoilt[fault]: processes.is_listening(port))

        prometheus_options = ["--prometheus", f"http://127.0.0.1:{port}", "--prometheus-settle", "2"]
        smoke = ["--duration", "10", "--peak", "4", "--thresholds", BUSY, "--model-version", "1", "--spacing", "constant"]
        # Alike, so that none stays away by chance.
        smoke += ["--mix", "portal=1,api=1,batch=1,slow=1,hostile=1"]
        started.begin("smoke", watched, *smoke, *prometheus_options)
        closed = [
            "--loop",
            "closed",
            "--shape",
            "burst",
            "--duration",
            "5",
            "--peak",
            "10",
            "--mix",
            "api=3,portal=1",
            "--thresholds",
            BUSY,
        ]
        started.begin("closed", address, *key, *closed)
        # A process for each worker and the master; its usual port may be somebody else's.
        of_master = str(processes.free_port())
        alike = ["--processes", "2", "--master-bind-port", of_master, "--master-port", of_master]
        started.begin(
            "distributed",
            address,
            *key,
            *alike,
            "--duration",
            "3",
            "--peak",
            "4",
            "--spacing",
            "constant",
            "--thresholds",
            BUSY,
        )
        short = ["--duration", "3", "--mix", "api=1"]
        started.begin("overloaded", slow, *short, "--peak", "8")
        for fault, port in spoilt.items():
            started.begin(fault, f"http://127.0.0.1:{port}", *short, "--peak", "20", "--thresholds", BUSY)
        yield started


def told(report, outcome):
    return sum(answer["pictures"] for answer in report["answers"] if answer["outcome"] == outcome)


def test_ten_seconds_of_everything(runs):
    code, output, report = runs.end("smoke")

    assert code == 0, output
    assert report["holds"]
    # As many as were to come, whatever became of those before.
    assert report["figures"]["visits"] == pytest.approx(40, abs=5)
    assert {answer["step"] for answer in report["answers"]} >= {
        "portal page",
        "portal asset",
        "portal result",
        "api",
        "hostile",
    }
    assert told(report, "accepted") > 20
    assert told(report, "wrong") == told(report, "lost") == told(report, "failed") == 0
    assert "ok      availability >= 0.5" in output


def test_prometheus_saw_what_the_clients_counted(runs):
    _, output, report = runs.end("smoke")
    server = report["server"]
    pictures = {"api", "portal result", "batch", "slow upload"}
    accepted = sum(
        answer["pictures"] for answer in report["answers"] if answer["step"] in pictures and answer["outcome"] == "accepted"
    )

    assert sum(server["outcomes"].values()) == accepted, output
    assert server["API, p99 ms"][""] > 0
    assert server["pictures present, most"][""] >= 0
    assert server["gateways"] == {"": 1.0}


def test_users_that_wait_for_their_answers(runs):
    code, output, report = runs.end("closed")

    assert code == 0, output
    assert (report["run"]["loop"], report["run"]["complete"]) == ("closed", True)
    assert report["figures"]["visits"] > 5


def test_a_master_and_its_workers_make_one_run(runs):
    code, output, report = runs.end("distributed")

    assert code == 0, output
    assert report["run"]["workers"] == 2
    assert report["figures"]["visits"] > 5
    assert report["figures"]["requests"] == sum(time["requests"] for time in report["times"])


def test_a_gateway_that_cannot_take_it_breaks_what_was_promised_of_it_and_nothing_else(runs):
    code, output, report = runs.end("overloaded")

    assert code == 1, output
    broken = {check["threshold"] for check in report["thresholds"] if not check["holds"]}
    assert "availability >= 0.99" in broken
    assert not broken & {"wrong == 0", "lost == 0", "unsent == 0"}
    assert told(report, "refused") > 0


@pytest.mark.parametrize("fault", ["wrong", "lost"])
def test_spoilt_answers_break_the_gate(runs, fault):
    code, output, report = runs.end(fault)

    assert code == 1, output
    assert told(report, fault) > 0
    assert [check["threshold"] for check in report["thresholds"] if not check["holds"]] == [f"{fault} == 0"]
    assert f"BROKEN  {fault} == 0" in output


def test_without_its_fault_the_same_server_passes(runs):
    """Otherwise the test above would prove nothing."""
    code, output, _ = runs.end("none")

    assert code == 0, output


@pytest.fixture(scope="module")
def failed_starts(files, stack, tiny_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("failed")
    started = Runs(folder, files)
    address, nowhere = stack[0], f"http://127.0.0.1:{processes.free_port()}"
    started.begin("nobody there", nowhere)
    started.begin("no corpus", address, "--corpus", str(folder / "none"))
    started.begin("no threshold", address, "--thresholds", "speed<=1")
    with gateway_with_keys(tiny_server[0], folder) as closed:
        started.begin("no key", closed)
        yield started
        started.kill()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobody there", "no answer from http://127.0.0.1"),
        ("no corpus", "python -m loadtests.corpus"),
        ("no threshold", "not like accepted_p95_ms<=2000"),
        ("no key", "does not let us in (401): give the file of a key"),
    ],
)
def test_a_run_that_cannot_begin_says_why_and_ends_with_2(failed_starts, name, says):
    code, output, report = failed_starts.end(name)

    assert code == 2, output
    assert says in output
    assert "Traceback" not in output
    assert report == {}


def test_every_kind_of_visit_has_a_weight():
    assert MIX.keys() == {"portal", "api", "batch", "slow", "hostile"}
    assert sum(MIX.values()) == 100
