import pytest

from scripts.documents import replace_block
from scripts.lighthouse import shortfalls, table


def measured(**scores):
    whole = {"accessibility": 1, "best-practices": 1, "performance": 0.95, "seo": 0.3}
    return {
        "page": "/check",
        "form_factor": "mobile",
        "scores": whole | {name.replace("_", "-"): score for name, score in scores.items()},
        "remarks": ["accessibility | color-contrast | Contrast is too low | p.hint", "performance | lcp | Too late"],
    }


def test_scores_that_are_high_enough_are_content_and_seo_is_for_information():
    assert shortfalls([measured()]) == []


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ({"accessibility": 0.99}, "/check, mobile: accessibility 99 < 100\n  color-contrast | Contrast is too low | p.hint"),
        ({"best_practices": 0.94}, "/check, mobile: best-practices 94 < 95"),
        ({"performance": 0.94}, "/check, mobile: performance 94 < 95\n  lcp | Too late"),
        ({"performance": None}, "/check, mobile: performance 0 < 95\n  lcp | Too late"),
    ],
)
def test_a_score_that_is_too_low_is_told_with_what_lighthouse_remarked(scores, says):
    assert shortfalls([measured(), measured(**scores)]) == [says]


def test_the_table_has_a_row_for_each_measurement():
    assert table([measured()]).splitlines()[2:] == ["| /check | mobile | 100 | 100 | 95 | 30 |"]


def test_a_block_is_replaced_and_nothing_else(tmp_path):
    document = tmp_path / "x.md"
    document.write_text("a\n<!-- b -->\nold\n<!-- /b -->\nc\n")

    replace_block(document, "b", "new\n")
    replace_block(document, "b", "newer\n")

    assert document.read_text() == "a\n<!-- b -->\n\nnewer\n\n<!-- /b -->\nc\n"
    with pytest.raises(ValueError, match="no block d"):
        replace_block(document, "d", "new\n")
