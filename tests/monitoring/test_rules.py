"""Each alert fires when it should and stays silent when it should, by Prometheus' own tool, and tells where to read on."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests import prometheus_rules
from tests.processes import ROOT

CASES = [Path(__file__).with_name(name) for name in ("minutes.yaml", "hours.yaml", "days.yaml")]
ALERTS = {rule["alert"]: rule for rule in prometheus_rules.rules("alert")}
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
MOST = 15
"""Alerts that one team can know by heart."""


def promtool(*arguments):
    run = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="module")
def rule_files(tmp_path_factory):
    return prometheus_rules.write_rule_files(tmp_path_factory.mktemp("rules"))


def expectations():
    """(alert, what is expected) of every case."""
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for expected in case.get("alert_rule_test", []):
                yield expected["alertname"], expected["exp_alerts"]


def test_prometheus_takes_the_rules(rule_files):
    promtool("check", "rules", "--lint-fatal", *rule_files)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_case_is_as_expected(path, rule_files, tmp_path):
    added = {"rule_files": rule_files, "group_eval_order": prometheus_rules.groups_in_order()}
    cases = yaml.safe_load(path.read_text()) | added
    (tmp_path / path.name).write_text(yaml.safe_dump(cases))

    promtool("test", "rules", tmp_path / path.name)


def test_every_alert_has_a_case_that_fires_and_one_that_stays_silent():
    assert {alert for alert, expected in expectations() if expected} == ALERTS.keys()
    assert {alert for alert, expected in expectations() if not expected} == ALERTS.keys()


def test_there_are_no_more_alerts_than_one_team_can_know():
    rules = list(prometheus_rules.rules("alert"))

    assert len(rules) == len(ALERTS) <= MOST


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(alert):
    rule = ALERTS[alert]

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["labels"]["service"] == "dermserve"
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"


def test_the_runbook_has_a_heading_for_each_alert_in_its_severity_and_for_no_other():
    parts = re.findall(r"^### (Dermserve\w+)\n\n_(critical|warning)_", RUNBOOK, re.MULTILINE)

    assert sorted(parts) == sorted((alert, rule["labels"]["severity"]) for alert, rule in ALERTS.items())


def test_an_objective_has_every_window_that_is_looked_at():
    recorded = {rule["record"] for rule in prometheus_rules.rules("record")}
    looked_at = {name for rule in ALERTS.values() for name in re.findall(r"dermserve:\w+:\w+", rule["expr"])}

    assert looked_at <= recorded
