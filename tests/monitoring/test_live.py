"""A real Prometheus reads a real gateway and model server: whatever rules and dashboards ask for is there, and can be asked."""

import contextlib
from types import SimpleNamespace

import promql_parser
import pytest
import requests
import yaml

from gateway import metrics
from tests import doors, processes, prometheus_rules
from tests.pictures import paint

MISSING = {
    "ALERTS": "Prometheus makes it while an alert is pending or fires",
    "container_cpu_usage_seconds_total": "the kubelet's",
    "container_memory_working_set_bytes": "the kubelet's",
    metrics.SHADOW_OUTCOMES.describe()[0].name
    + "_total": "the gateway's, where the canary is another version than the stable one",
}
"""Names that are asked for and that need not be there, and whose they are."""

TOO_YOUNG = {"dermserve:outcomes_none:share7d_before"}
"""Recorded of more days than there have been."""

WORKERS = 2
PERIOD = "1s"
MONITORS = {item["metadata"]["name"]: item["spec"] for item in prometheus_rules.MANIFESTS if item["kind"] == "PodMonitor"}


def scrape(job, address, key_file):
    """As the PodMonitor has it, with an address in place of pods."""
    (endpoint,) = MONITORS[job]["podMetricsEndpoints"]
    config = {
        "job_name": job,
        "metrics_path": endpoint["path"],
        "scrape_interval": PERIOD,
        "static_configs": [{"targets": [address], "labels": {"namespace": "dermserve"}}],
    }
    if "authorization" in endpoint:
        config["authorization"] = {"type": endpoint["authorization"]["type"], "credentials_file": str(key_file)}
    return config


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Prometheus over a stack that people and programs have used."""
    folder = tmp_path_factory.mktemp("watched")
    doors.write_keys(folder / "keys.json", prometheus="read_metrics", portal="classify")
    (folder / "key").write_text(doors.token("prometheus"))
    settings = {
        "GATEWAY_WORKERS": str(WORKERS),
        "GATEWAY_IDENTITY": "keys",
        "GATEWAY_API_KEYS_FILE": str(folder / "keys.json"),
        "GATEWAY_AUDIT_FILE": str(folder / "audit.jsonl"),
        "GATEWAY_GOLDEN_PERIOD_S": "0.5",
        "GATEWAY_SHADOW_SHARE": "1",
    }
    base = processes.ROOT / "serving" / "models" / "lesion"
    (version,) = [path.name for path in base.iterdir()]
    with (
        processes.model_server(base, folder, labels=f"stable:{version},canary:{version}") as (_, port, rest_port),
        processes.gateway(port, folder, **settings) as (_, gateway),
    ):
        processes.wait_until(lambda: requests.get(f"{gateway}/health/ready", timeout=5).ok)
        config = {
            "global": {"evaluation_interval": PERIOD},
            "rule_files": prometheus_rules.write_rule_files(folder),
            "scrape_configs": [
                scrape("gateway", gateway.removeprefix("http://"), folder / "key"),
                scrape("serving", f"127.0.0.1:{rest_port}", folder / "key"),
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        own_port = processes.free_port()
        command = ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
        with processes.running(
            [*command, f"--web.listen-address=127.0.0.1:{own_port}"], folder / "prometheus.log"
        ) as prometheus:
            prometheus.wait_for(lambda: "ready to receive web requests" in prometheus.output)
            api = SimpleNamespace(address=f"http://127.0.0.1:{own_port}/api/v1", gateway=gateway)
            prometheus.wait_for(lambda: len(ask(api, "up == 1")) == len(MONITORS))
            use(api)
            # After the last picture: a rule that was asked before it has seen none.
            prometheus.wait_for(lambda: ask(api, "dermserve:pictures_late:ratio_rate5m"))
            prometheus.wait_for(lambda: all(rule["health"] != "unknown" for rule in evaluated(api)))
            prometheus.wait_for(lambda: ask(api, "dermserve_gateway_golden_last_ok_timestamp_seconds > 0"))
            yield api


def use(api):
    """Pictures of several kinds, what is none, and somebody without a key; twice, with a look of Prometheus between."""
    headers = doors.header("portal")
    for _ in range(2):
        for data in (paint(), paint("malignant"), paint("out_of_scope", size=(100, 100)), b"no picture"):
            requests.post(f"{api.gateway}/api/v1/classifications", files={"file": ("x.png", data)}, headers=headers, timeout=60)
        assert requests.get(f"{api.gateway}/metrics", timeout=10).status_code == 401
        seen = ask(api, "sum(dermserve_gateway_outcomes_total)")
        processes.wait_until(lambda seen=seen: ask(api, "sum(dermserve_gateway_outcomes_total)") not in ([], seen))


def ask(api, query):
    response = requests.get(f"{api.address}/query", params={"query": query}, timeout=30)
    assert response.ok, response.text
    return [(item["metric"], item["value"][1]) for item in response.json()["data"]["result"]]


def evaluated(api):
    groups = requests.get(f"{api.address}/rules", timeout=30).json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def selected(expression):
    """Names of the series that an expression asks for."""
    found = set()

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def test_every_metric_that_is_asked_for_is_there(watched):
    recorded = {rule["record"] for rule in prometheus_rules.rules("record")}
    asked = {name for text in prometheus_rules.expressions().values() for name in selected(text)}
    there = set(requests.get(f"{watched.address}/label/__name__/values", timeout=30).json()["data"])

    assert asked - recorded - there - MISSING.keys() == set()
    assert MISSING.keys() <= asked


def test_every_rule_is_healthy(watched):
    rules = evaluated(watched)

    assert len(rules) == sum(1 for kind in ("alert", "record") for _ in prometheus_rules.rules(kind))
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_a_stack_that_is_well_sets_off_no_alert(watched):
    firing = [rule["name"] for rule in evaluated(watched) if rule.get("state") not in (None, "inactive")]

    assert firing == []


def empty_panels(api, name):
    queries = prometheus_rules.queries(prometheus_rules.DASHBOARDS[name]).items()
    asked = {title: expression.replace("$__rate_interval", "1m") for title, expression in queries}
    expected = {title: query for title, query in asked.items() if not selected(query) & (MISSING.keys() | TOO_YOUNG)}
    return [title for title, query in expected.items() if not ask(api, query)]


@pytest.mark.parametrize("name", prometheus_rules.DASHBOARDS)
def test_every_panel_shows_something(watched, name):
    # A rate needs two looks, and what is recorded of it the next evaluation.
    with contextlib.suppress(AssertionError):
        processes.wait_until(lambda: not empty_panels(watched, name), timeout_s=30)

    assert empty_panels(watched, name) == []


def test_what_scales_gets_a_number(watched):
    for where, query in prometheus_rules.scaling_queries().items():
        assert len(ask(watched, query)) == 1, where
