import dataclasses

import pytest

from gateway.prevalence import EXAMPLES, malignant_if_flagged, malignant_if_not_flagged
from serving.metadata import Estimate, OperatingPoint


def point(sensitivity, specificity):
    return OperatingPoint("test", Estimate(sensitivity, 0, 1, 100), Estimate(specificity, 0, 1, 100))


@pytest.mark.parametrize(("prevalence", "expected"), [(0.5, 0.905), (0.07, 0.417), (0.02, 0.162)])
def test_the_rarer_it_is_the_more_flags_are_false(prevalence, expected):
    """The figures are those that the literature gives for these two rates."""
    assert malignant_if_flagged(point(0.95, 0.90), prevalence) == pytest.approx(expected, abs=5e-4)
    assert prevalence in EXAMPLES


def test_both_are_the_shares_of_people_counted_out_by_hand():
    # Of 10,000, 700 malignant: 665 flagged, 35 missed; 9,300 benign: 2,697 flagged, 6,603 not.
    rates = point(0.95, 0.71)

    assert malignant_if_flagged(rates, 0.07) == pytest.approx(665 / (665 + 2697))
    assert malignant_if_not_flagged(rates, 0.07) == pytest.approx(35 / (35 + 6603))


def test_where_nothing_is_flagged_nothing_is_divided_by():
    never = point(0.0, 1.0)

    assert malignant_if_flagged(never, 0.07) == 0.0
    assert malignant_if_not_flagged(dataclasses.replace(never, sensitivity=Estimate(1, 1, 1, 9)), 0.07) == 0.0
