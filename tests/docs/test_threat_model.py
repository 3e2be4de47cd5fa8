import ast
import re

import pytest

from tests.processes import ROOT

TEXT = (ROOT / "docs" / "threat-model.md").read_text()
ROW = re.compile(r"^\| (.+?) \| ([STRIDE ]+) \| (.*?) ?\| (.+?) \| (.*?) ?\|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
SECTIONS = [section.partition("\n") for section in TEXT.split("\n## ")[1:]]
BOUNDARIES = [(title, body) for title, _, body in SECTIONS if re.match(r"\d+\. ", title)]


def names_in(path):
    """Names at a file's top level, as pytest collects them."""
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED.findall(TEXT)}))
def test_every_test_that_is_named_exists(path):
    named = {name for named_path, name in NAMED.findall(TEXT) if named_path == path}

    assert (ROOT / path).name.startswith("test_")
    assert named <= names_in(path)


def test_every_threat_has_a_test_or_says_why_not():
    for title, body in BOUNDARIES:
        lines = [line for line in body.splitlines() if line.startswith("| ")][1:]
        rows = [ROW.fullmatch(line) for line in lines]
        assert all(rows), (title, [line for line, row in zip(lines, rows, strict=True) if not row])
        for row in rows:
            assert NAMED.search(row[4]) or re.fullmatch(r"none: .+", row[4]), row[1]
            # What nothing tests is not over: what follows from it has to be said.
            assert NAMED.search(row[4]) or row[5], row[1]


def test_every_kind_of_threat_and_every_boundary_is_looked_at():
    kinds = {letter for _, body in BOUNDARIES for row in ROW.finditer(body) for letter in row[2].split()}
    picture = re.search(r"```\n(.+?)```", TEXT, re.DOTALL)[1]
    looked_at = {number for title, _ in BOUNDARIES for number in re.findall(r"\d+", title.partition("(")[2])}

    assert kinds == set("STRIDE")
    assert set(re.findall(r"(\d+)─", picture)) == looked_at
    assert len(BOUNDARIES) > 8
