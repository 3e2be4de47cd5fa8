import os
import re
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from tests.k8s import rendering, validation
from tests.k8s.checks import CHECKS
from tests.k8s.checks_gateway import settings_of
from tests.k8s.objects import environment, of_kind, pod_of, pods
from tests.processes import ROOT

COPIES = {
    "k8s/base/serving/config/models.config": "serving/config/models.config",
    "k8s/base/serving/config/batching.config": "serving/config/batching.config",
    "k8s/base/serving/config/monitoring.config": "serving/config/monitoring.config",
    "k8s/components/gpu/batching.config": "serving/config/batching.gpu.config",
}


def kustomization(overlay):
    return yaml.safe_load((rendering.K8S / "overlays" / overlay / "kustomization.yaml").read_text())


@pytest.mark.parametrize("overlay", rendering.OVERLAYS)
@pytest.mark.parametrize("version", validation.VERSIONS)
def test_an_overlay_is_valid(overlay, version):
    assert [problem for item in rendering.overlay(overlay) for problem in validation.problems(item, version)] == []


@pytest.mark.parametrize("overlay", rendering.OVERLAYS)
@pytest.mark.parametrize("name", sorted(CHECKS))
def test_an_overlay_keeps(overlay, name):
    assert list(CHECKS[name](rendering.overlay(overlay))) == []


@pytest.mark.parametrize("overlay", rendering.OVERLAYS)
def test_an_overlay_is_short_and_lists_components_in_order(overlay):
    listed = [path.rpartition("/")[2] for path in kustomization(overlay)["components"]]

    assert len((rendering.K8S / "overlays" / overlay / "kustomization.yaml").read_text().splitlines()) <= 30
    assert listed[0] == rendering.FIRST or rendering.FIRST not in listed
    assert listed[-1] == rendering.LAST or rendering.LAST not in listed


def images(objects):
    return {container["image"] for pod in pods(objects) for container in pod.containers}


def test_the_local_overlay_runs_the_images_that_make_images_makes():
    script = (ROOT / "scripts" / "images.sh").read_text()
    (prefix,) = re.findall(r"^prefix=\$\{REGISTRY:-([\w.]+)\}/dermserve$", script, re.MULTILINE)
    (names,) = re.findall(r"targets=\((gateway [\w ]+)\)$", script, re.MULTILINE)
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    made = {f"{prefix}/dermserve/{name}:{version}" for name in names.split()}
    run = images(rendering.overlay("local"))

    assert '--tag "$prefix/$target:$tag"' in script
    assert len(run) == 2
    assert run <= made


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_grep_example_finds_the_images_that_come_out_of_your_registry(overlay):
    """The rest it finds because of a check: what_has_to_be_replaced_says_example."""
    ours = {image for image in images(rendering.overlay(overlay)) if not image.startswith("docker.io/tensorflow/serving:")}

    renamed = {entry["name"] for entry in kustomization("production")["images"]}
    named = {image.partition(":")[0] for chosen in rendering.everything() for image in images(rendering.combination(chosen))}

    assert {name for name in named if name.startswith("dermserve/")} == renamed
    assert ours
    assert [image for image in ours if "example" not in image] == []
    assert "`kubectl kustomize OVERLAY | grep example`" in (ROOT / "docs" / "kubernetes.md").read_text()


def test_one_machine_needs_no_disk_that_several_nodes_share():
    claims = of_kind(rendering.overlay("local"), "PersistentVolumeClaim")

    assert [claim["spec"]["accessModes"] for claim in claims] == [["ReadWriteOnce"]]


@pytest.mark.parametrize("version", validation.VERSIONS)
def test_the_library_itself_agrees(version):
    """We read its schemas; it must have read them alike."""
    for item in rendering.overlay("local"):
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("copy", COPIES)
def test_the_model_servers_files_are_those_of_serving(copy):
    assert (ROOT / copy).read_text() == (ROOT / COPIES[copy]).read_text()


def test_only_the_local_overlay_makes_a_secret_and_its_file_is_nobodys_but_this_machines():
    making = [path for path in rendering.K8S.rglob("kustomization.yaml") if "secretGenerator" in path.read_text()]

    assert making == [rendering.K8S / "overlays" / "local" / "kustomization.yaml"]
    assert kustomization("local")["secretGenerator"] == [{"name": "gateway-api-keys", "files": ["keys.json"]}]
    assert "k8s/overlays/local/keys.json" in (ROOT / ".gitignore").read_text().splitlines()
    assert [item["metadata"]["name"] for item in of_kind(rendering.overlay("production"), "Secret")] == []


def test_gunicorn_gives_its_requests_the_time_that_the_checks_assume():
    objects = rendering.overlay("production")
    settings = settings_of(objects)
    given = subprocess.run(
        [sys.executable, "-c", "import runpy; print(runpy.run_path('gateway/gunicorn.conf.py')['graceful_timeout'])"],
        cwd=ROOT,
        env=os.environ | environment(objects, pod_of(objects, "gateway").main),
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert int(given) == round(settings.drain_s + settings.request_budget_s)


def test_each_file_has_one_object():
    several = [
        path
        for path in rendering.K8S.rglob("*.yaml")
        if path.name != "kustomization.yaml" and len([one for one in yaml.safe_load_all(path.read_text()) if one]) != 1
    ]

    assert several == []
