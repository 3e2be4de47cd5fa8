import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.k8s import rendering, validation
from tests.k8s.checks import CHECKS, failing

COMBINATIONS = rendering.combinations()

# Whichever test comes first waits for over a hundred programs that render, a tenth of a second of processor time each.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", autouse=True)
def _rendered():
    rendering.combination(())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(rendering.combination, COMBINATIONS))


def test_the_combinations_are_all_pairs_and_everything_together():
    paired = {frozenset(chosen) for chosen in COMBINATIONS if len(chosen) == 2}
    excluded = {frozenset(names) for names in rendering.ALTERNATIVES}

    assert len(paired | excluded) == len(rendering.COMPONENTS) * (len(rendering.COMPONENTS) - 1) / 2
    assert set(rendering.COMPONENTS) == set().union(*rendering.everything())


@pytest.mark.parametrize("version", validation.VERSIONS)
def test_every_object_of_every_combination_is_valid(version):
    """Objects that several combinations have in common are validated once."""
    distinct = {json.dumps(item, sort_keys=True): item for chosen in COMBINATIONS for item in rendering.combination(chosen)}

    assert [problem for item in distinct.values() for problem in validation.problems(item, version)] == []


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_every_combination_keeps(name):
    found = {"+".join(chosen) or "base": list(CHECKS[name](rendering.combination(chosen))) for chosen in COMBINATIONS}

    assert {chosen: problems for chosen, problems in found.items() if problems} == {}


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        (("redis", "network-policies"), "gateways_reach_what_they_need_and_no_more"),
        (("audit", "autoscaling"), "scalers_have_their_target"),
        (("audit", "postgres"), "the_audit_outlives_its_pod"),
    ],
)
def test_components_in_the_wrong_order_are_noticed(components, expected):
    assert expected in failing(rendering.combination(components))
