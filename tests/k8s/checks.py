"""All checks: whoever imports CHECKS from here has every one of them registered."""

from tests.k8s import (
    checks_examples,
    checks_gateway,
    checks_network,
    checks_pods,
    checks_references,
    checks_scaling,
    checks_serving,
)
from tests.k8s.objects import CHECKS, failing

MODULES = (checks_examples, checks_gateway, checks_network, checks_pods, checks_references, checks_scaling, checks_serving)

__all__ = ["CHECKS", "MODULES", "failing"]
