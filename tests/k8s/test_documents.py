"""The manifests and programs that documents show, for they are carried out as they stand there."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from gateway.audit.record import Event
from gateway.audit.trail import FileAudit
from tests.k8s import rendering, validation
from tests.k8s.checks import CHECKS, failing
from tests.processes import ROOT

TEXT = (ROOT / "docs" / "recovery.md").read_text()
SECTION = TEXT[TEXT.index("## On Kubernetes") : TEXT.index("## Rehearsed")]
CASE = "ac5e0001-0000-4000-8000-000000000000"


def manifests(text):
    return [textwrap.dedent(block) for block in re.findall(r"^ *```yaml\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)]


@pytest.fixture(scope="module")
def job():
    (text,) = manifests(SECTION)
    # Through JSON: no object stands twice in it.
    return json.loads(json.dumps(yaml.safe_load(text)))


def program(variable):
    """A shell variable's, as the page gives it."""
    return textwrap.dedent(re.search(rf"^( *){variable}='(.*?)'$", SECTION, re.DOTALL | re.MULTILINE)[0]).split("'")[1]


def run(source, *, data=b"", **environment):
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, env=os.environ | environment, input=data, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("version", validation.VERSIONS)
def test_the_job_of_a_recovery_is_valid(job, version):
    assert validation.problems(job, version) == []


def test_the_job_of_a_recovery_keeps_what_all_manifests_keep(job):
    """Beside all components, so that the policies, claims, accounts and Secrets that it goes by are there."""
    assert failing([*rendering.combination(rendering.everything()[0]), job]) == {}


def test_the_claims_that_a_recovery_lists_are_all_that_hold_an_audit(job):
    objects = rendering.combination(rendering.in_order({"audit", "postgres"}))
    claims = [item["metadata"]["name"] for item in objects if item["kind"] == "PersistentVolumeClaim"]
    templates = [
        template["metadata"]["name"] for item in objects for template in item.get("spec", {}).get("volumeClaimTemplates", [])
    ]

    assert "grep /audit-" in SECTION
    assert templates == ["audit"]
    assert [name for name in claims if name.startswith("audit-")] == ["audit-cases-purge"]
    assert {volume["persistentVolumeClaim"]["claimName"] for volume in job["spec"]["template"]["spec"]["volumes"][1:2]} == {
        "audit-cases-purge"
    }


def test_the_programs_of_a_recovery_copy_the_chains_and_give_all_of_them_to_erase_again(job, tmp_path):
    spec = job["spec"]["template"]["spec"]
    waits, upgrade, again = [*spec["initContainers"], *spec["containers"]]
    disks = {name: tmp_path / name for name in ("gateway", "purge", "copies")}
    for name in ("gateway", "purge"):
        disks[name].mkdir()
        # Files of one record each: the chain goes over several.
        audit = FileAudit(disks[name] / "audit.jsonl", max_bytes=1)
        for _ in range(3):
            audit.write(Event("operator", "erase_case", "purge", "done", cases=(CASE,)))
    disks["copies"].mkdir()
    settings = {"GATEWAY_CASES_DATABASE": f"sqlite:///{tmp_path}/cases.db"}
    settings |= {"GATEWAY_AUDIT_FILE": f"{disks['purge']}/audit.jsonl"}

    def placed(source, own):
        return source.replace("/var/lib/dermserve", str(disks[own])).replace("/copies", str(disks["copies"]))

    run(placed(program("IN"), "purge"), data=run(placed(program("OUT"), "gateway")))
    (disks["copies"] / "complete").touch()
    run(placed(waits["command"][2], "purge"))
    assert upgrade["command"] == ["python", "-m", "gateway.cases", "upgrade"]
    run("import sys; from gateway.cases.__main__ import main; sys.exit(main(['upgrade']))", **settings)
    told = run(placed(again["command"][2], "purge"), **settings).decode().splitlines()
    told[-1], since = re.subn(r" erasures are known from record 1 of \S+ and record 1 of \S+ on;", "", told[-1])

    assert told == [
        f"{disks['purge']}: 3 files",
        f"{disks['copies']}/{os.uname().nodename}: 3 files",
        "0 cases erased again; 0 kept according to the audit record and not there",
    ]
    assert since == 1


def test_the_container_that_fetches_has_its_credentials_in_a_file():
    (text,) = manifests((ROOT / "docs" / "rollout.md").read_text())
    template = {"metadata": {"labels": {}}, "spec": yaml.safe_load(text)}
    shown = [{"kind": "Deployment", "metadata": {"name": "serving"}, "spec": {"template": template}}]
    (fetch,) = template["spec"]["initContainers"]
    seen = {entry["name"]: entry["value"] for entry in fetch["env"]}

    assert [*CHECKS["secrets_are_files"](shown), *CHECKS["mounts_have_a_volume"](shown)] == []
    assert str(Path(seen["AWS_SHARED_CREDENTIALS_FILE"]).parent) in [mount["mountPath"] for mount in fetch["volumeMounts"]]


def test_the_threat_model_says_the_same():
    row = re.search(r"^\| secrets in the environment.*$", (ROOT / "docs" / "threat-model.md").read_text(), re.MULTILINE)[0]

    assert "AWS_SHARED_CREDENTIALS_FILE" in row


def test_whoever_brings_it_up_is_told_that_the_proxy_takes_in_whole_requests():
    steps = re.findall(r"^\d\. \*\*(.+?)\*\*", (ROOT / "docs" / "kubernetes.md").read_text(), re.MULTILINE)

    assert "The proxy takes in whole requests before it hands them on." in steps
