"""Renders overlays and combinations of components with the kustomize inside kubectl, each once in a process."""

import atexit
import functools
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.processes import KUBECTL, ROOT

K8S = ROOT / "k8s"
NAMESPACE = "dermserve"

OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.parent.name for path in (K8S / "components").glob("*/kustomization.yaml"))
"""Every folder, also one that is new: it is in all combinations from then on."""

ALTERNATIVES = (("object-store-models", "oci-models"), ("embedded", "gpu"))
"""Of each of these only one can be had."""

FIRST, LAST = "network-policies", "audit"
"""The one that others add to, and the one that changes what others have added."""


def in_order(components):
    """As an overlay has to list them."""
    return tuple(sorted(components, key=lambda name: (name != FIRST, name == LAST, name)))


def is_possible(components):
    return all(len(set(components).intersection(alternatives)) < 2 for alternatives in ALTERNATIVES)


def everything():
    """All components together, once for each choice among the alternatives."""
    others = set(COMPONENTS).difference(*ALTERNATIVES)
    return [in_order(others.union(choice)) for choice in itertools.product(*ALTERNATIVES)]


def combinations():
    """The base alone, each component, each pair, and all together."""
    smaller = [chosen for count in (0, 1, 2) for chosen in itertools.combinations(COMPONENTS, count) if is_possible(chosen)]
    return [in_order(chosen) for chosen in smaller] + everything()


@functools.cache
def _copy():
    """A copy to render in, with a key file for the local overlay, which each machine has for itself."""
    folder = Path(tempfile.mkdtemp(prefix="dermserve-k8s-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(K8S, folder / "k8s", ignore=shutil.ignore_patterns("keys.json"))
    keys = folder / "k8s" / "overlays" / "local" / "keys.json"
    subprocess.run(
        [*f"{sys.executable} -m gateway.api_keys create --id local --permissions classify --days 1 --file".split(), keys],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder / "k8s"


def _kustomize(folder):
    rendered = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    assert rendered.returncode == 0, f"{folder}: {rendered.stderr}"
    return rendered.stdout


@functools.cache
def text_of_overlay(name):
    return _kustomize(_copy() / "overlays" / name)


@functools.cache
def text_of(components):
    """Of base and these components."""
    folder = Path(tempfile.mkdtemp(dir=_copy())) / "it"
    folder.mkdir()
    listed = [f"../../components/{name}" for name in components]
    kustomization = {"namespace": NAMESPACE, "resources": ["../../base"], "components": listed}
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
    return _kustomize(folder)


@functools.cache
def _load(text):
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def overlay(name):
    """Its objects; nobody changes them."""
    return _load(text_of_overlay(name))


def combination(components):
    """Likewise."""
    return _load(text_of(components))
