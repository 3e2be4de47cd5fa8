"""The monitoring component of k8s as Prometheus' own tools and the tests read it."""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.processes import ROOT

COMPONENT = ROOT / "k8s" / "components" / "monitoring"
MANIFESTS = [document for path in sorted(COMPONENT.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())]
RULES = {item["metadata"]["name"]: item["spec"] for item in MANIFESTS if item["kind"] == "PrometheusRule"}
"""Name of the object -> what Prometheus calls a rule file."""

DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((COMPONENT / "dashboards").glob("*.json"))}


def write_rule_files(folder: Path) -> list[str]:
    paths = []
    for name, spec in RULES.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(spec))
        paths.append(str(path))
    return paths


def groups_in_order() -> list[str]:
    """Records first: promtool takes any order where nobody says so, and an alert would see an hour-old record or none."""
    groups = [group for spec in RULES.values() for group in spec["groups"]]
    return [group["name"] for group in sorted(groups, key=lambda group: "alert" in group["rules"][0])]


def rules(kind: str) -> Iterator[dict]:
    """Those with the key `alert`, or `record`."""
    return (rule for spec in RULES.values() for group in spec["groups"] for rule in group["rules"] if kind in rule)


def queries(board: dict) -> dict[str, str]:
    """Title of the panel and the query's letter -> PromQL."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }


def scaling_queries() -> dict[str, str]:
    """By which KEDA scales, wherever k8s has them."""
    found = {}
    for path in sorted((ROOT / "k8s").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, dict) and document["kind"] == "ScaledObject":
                for place, trigger in enumerate(document["spec"]["triggers"]):
                    if trigger["type"] == "prometheus":
                        found[f"{path.relative_to(ROOT)} {place}"] = trigger["metadata"]["query"]
    return found


def expressions() -> dict[str, str]:
    """Whatever asks Prometheus -> PromQL, with Grafana's variable filled in."""
    found = {
        rule.get("alert") or f"{rule['record']} {rule.get('labels', '')}": rule["expr"]
        for rule in [*rules("alert"), *rules("record")]
    }
    for name, board in DASHBOARDS.items():
        found |= {f"{name}: {title}": expression for title, expression in queries(board).items()}
    return {where: text.replace("$__rate_interval", "1m") for where, text in (found | scaling_queries()).items()}
