import json
import math
import re
import subprocess

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.utils import floatToGoString

from gateway import drift, metrics
from gateway.drift import noise, psi, shares
from tests.metadata import NONE_SCORES_LIKE, VALIDATION_LIKE
from tests.processes import ROOT
from tests.prometheus_rules import RULES

TEXT = (ROOT / "docs" / "monitoring.md").read_text()
TABLE_ROW = re.compile(r"^\| `(dermserve_\w+)` \| (\w+) \| ([\w, ]*?) ?\| ", re.MULTILINE)
HOURS = 24
SIDES = {"malignant_probability": VALIDATION_LIKE, "none_score": NONE_SCORES_LIKE}
BUCKETS = {"malignant_probability": metrics.PROBABILITY_BUCKETS, "none_score": metrics.NONE_SCORE_BUCKETS}
GIVEN = {
    "malignant_probability": (10, 20, 30, 40, 50, 60, 50, 40, 30, 20, 10, 0),
    "none_score": (0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 324),
}
"""Answered by each of two gateways, in an hour."""


def registered():
    """Name as Prometheus sees it -> type and labels."""
    found = {}
    for collector in REGISTRY._collector_to_names:
        if getattr(collector, "_name", "").startswith("dermserve_"):
            suffix = "_total" if collector._type == "counter" else ""
            found[collector._name + suffix] = (collector._type, list(collector._labelnames))
    return found | {family.name: (family.type, list(family._labelnames)) for family in drift.derived()}


def test_the_table_is_what_the_code_registers():
    documented = {name: (kind, labels.split(", ") if labels else []) for name, kind, labels in TABLE_ROW.findall(TEXT)}

    assert documented == registered()


def test_the_buckets_around_the_objective_are_there():
    assert 2.0 in metrics.REQUEST_BUCKETS_S
    assert 'le="2.0"' in str(RULES["dermserve-objectives"])


def test_the_noise_that_is_stated_is_that_of_the_code():
    (pictures, stated) = re.findall(r"^\| (?:pictures|index) \| (.+) \|$", TEXT, re.MULTILINE)

    for n, value in zip(pictures.split(" | "), stated.split(" | "), strict=True):
        assert float(value) == round(noise(12, int(n.replace(",", "")), sum(VALIDATION_LIKE)), 3)


def series():
    """What two gateways export for a day; each has the whole reference."""
    for instance in ("a", "b"):
        yield f'dermserve_gateway_reference_pictures{{model_version="3", instance="{instance}"}}', f"2721x{HOURS}"
        for score, reference in SIDES.items():
            edges = [-math.inf, *BUCKETS[score], math.inf]
            up_to = 0
            for place, (count, share) in enumerate(zip(GIVEN[score], shares(reference), strict=True)):
                up_to += count
                above, edge = map(floatToGoString, edges[place : place + 2])
                labels = f'model_version="3", instance="{instance}", le="{edge}"'
                yield f"dermserve_gateway_{score}_bucket{{{labels}}}", f"0+{up_to}x{HOURS}"
                yield f'dermserve_gateway_reference_share{{score="{score}", above="{above}", {labels}}}', f"{share!r}x{HOURS}"


def six_digits(value):
    """As PromQL's round(value, 0.000001)."""
    return math.floor(value * 1e6 + 0.5) / 1e6


@pytest.fixture
def rules(tmp_path):
    """The drift's rules in a file of their own."""
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(RULES["dermserve-drift"]))
    return path


def test_prometheus_gets_the_index_that_the_code_would(rules, tmp_path):
    expected = {"drift_psi": {}, "drift_pictures": {}}
    for score, reference in SIDES.items():
        counts = [2 * HOURS * count for count in GIVEN[score]]
        expected["drift_psi"][score] = six_digits(psi(shares(reference), shares(counts)))
        expected["drift_pictures"][score] = sum(counts)
    checks = [
        {
            "expr": f"round(dermserve:{name}:1d, 0.000001)",
            "eval_time": f"{HOURS}h",
            "exp_samples": [
                {"labels": f'{{score="{score}", model_version="3"}}', "value": value} for score, value in by_score.items()
            ],
        }
        for name, by_score in expected.items()
    ]
    # The rule has the quantile as a number with five digits.
    stated = noise(12, expected["drift_pictures"]["none_score"], 2721)
    checks.append(
        {
            "expr": f'abs(dermserve:drift_noise:1d{{score="none_score"}} / {stated} - 1) < bool 0.003',
            "eval_time": f"{HOURS}h",
            "exp_samples": [{"labels": '{score="none_score", model_version="3"}', "value": 1}],
        }
    )
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1h",
        "tests": [
            {
                "interval": "1h",
                "input_series": [{"series": name, "values": values} for name, values in series()],
                "promql_expr_test": checks,
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(test))))

    run = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True, check=False, timeout=60
    )

    assert run.returncode == 0, run.stdout + run.stderr
