import re

from gateway.api import to_document
from gateway.classify import Classification
from tests.metadata import METADATA
from tests.processes import ROOT

README = (ROOT / "README.md").read_text()


def rows(heading):
    """First and second cell of the rows under a heading."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)


def test_the_answer_has_the_keys_that_the_readme_names():
    classification = Classification("id", "benign", None, 0.1, 0.0, (), METADATA)
    document = to_document(classification)
    described = dict(rows("Classify a picture"))

    assert described.keys() == document.keys()
    for key, value in document.items():
        if isinstance(value, dict):
            assert set(re.findall(r"`(\w+)`", described[key])) == value.keys()


def test_the_tree_is_there():
    folders = [folder for folder, _ in rows("The tree")]

    assert {"gateway/", "serving/", "training/", "web/", "tests/"} <= set(folders)
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []
