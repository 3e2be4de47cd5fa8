"""The dashboards are what the code makes, can be drawn, and ask for nothing that is no PromQL."""

import subprocess
import sys
from itertools import combinations

import promql_parser
import pytest
import yaml

from tests import prometheus_rules
from tests.processes import KUBECTL, ROOT
from tests.prometheus_rules import COMPONENT, DASHBOARDS

GRID_COLUMNS = 24


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def cells(panel):
    place = panel["gridPos"]
    return {
        (column, row)
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    }


def test_the_files_are_what_the_code_makes(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts" / "dashboards", tmp_path], check=True, timeout=60)

    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in (COMPONENT / "dashboards").iterdir()}, "run `make dashboards`"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_lies_on_another_or_beside_the_grid(name):
    drawn = DASHBOARDS[name]["panels"]

    assert all(panel["gridPos"]["x"] >= 0 and panel["gridPos"]["x"] + panel["gridPos"]["w"] <= GRID_COLUMNS for panel in drawn)
    assert all(cells(panel) for panel in drawn)
    assert [(one["title"], other["title"]) for one, other in combinations(drawn, 2) if cells(one) & cells(other)] == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_panel_has_a_title_a_meaning_queries_and_the_chosen_source(name):
    board = DASHBOARDS[name]
    source = {"type": "prometheus", "uid": "${datasource}"}

    assert board["uid"] == f"dermserve-{name}"
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel["title"] for panel in panels(board)}) == len(panels(board))
    for panel in panels(board):
        assert panel["description"].endswith((".", ")"))
        assert panel["datasource"] == source
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) >= 1
        assert all(target["datasource"] == source for target in panel["targets"])


@pytest.mark.parametrize("where", prometheus_rules.expressions())
def test_an_expression_is_promql(where):
    promql_parser.parse(prometheus_rules.expressions()[where])


def test_kustomize_makes_a_labelled_config_map_of_each_dashboard(tmp_path):
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"components": ["monitoring"]}))
    (tmp_path / "monitoring").symlink_to(COMPONENT)
    command = [KUBECTL, "kustomize", "--load-restrictor=LoadRestrictionsNone", tmp_path]
    built = list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout))

    boards = [item for item in built if item["kind"] == "ConfigMap"]
    assert {file for item in boards for file in item["data"]} == {f"{name}.json" for name in DASHBOARDS}
    assert all(item["metadata"]["labels"]["grafana_dashboard"] == "1" for item in boards)
    assert sorted(item["kind"] for item in built if item not in boards) == ["PodMonitor"] * 2 + ["PrometheusRule"] * 3
