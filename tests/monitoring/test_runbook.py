"""What the runbook tells somebody to type at night does on the cluster of k8s what it says."""

import re
import subprocess

import pytest

from tests.processes import KUBECTL, ROOT

TEXT = (ROOT / "docs" / "runbook.md").read_text()
SECTIONS = dict(re.findall(r"^### (.+)\n((?:(?!^##).*\n)*)", TEXT, re.MULTILINE))
COMMANDS = [
    line.strip()
    for block, inline in re.findall(r"^ *```\n((?:(?! *```).*\n)*) *```|`(kubectl [^`]+)`", TEXT, re.MULTILINE)
    for line in (block or inline).splitlines()
]
SERVING = (ROOT / "k8s" / "base" / "serving" / "deployment.yaml").read_text()
EMBEDDED = (ROOT / "k8s" / "components" / "embedded" / "deployment-serving.yaml").read_text()
POLLING = "--model_config_file_poll_wait_seconds"


def starting(*words):
    found = [command for command in COMMANDS if command.startswith(words)]
    assert found
    return found


def test_a_log_is_that_of_every_pod():
    of_one = [line for line in starting("kubectl logs") if "/" in line.split()[2] and "--all-pods=true --prefix" not in line]

    assert of_one == []


def test_kubectl_has_the_options():
    known = subprocess.run([KUBECTL, "logs", "--help"], capture_output=True, text=True, check=True, timeout=60).stdout

    assert {"--all-pods", "--prefix", "--since"} <= set(re.findall(r"--[a-z-]+", known))


def test_what_is_run_in_a_pod_is_in_an_image_without_a_shell():
    assert "FROM scratch AS gateway" in (ROOT / "Dockerfile").read_text()
    assert {line.split(" -- ")[1].split()[0] for line in starting("kubectl exec ")} == {"python"}
    assert not [line for line in COMMANDS if line.startswith("kubectl cp ")]


@pytest.mark.parametrize("code", re.findall(r'python -c "([^"]+)"', TEXT))
def test_what_python_is_given_is_python(code):
    compile(code, "runbook", "exec")


def test_a_change_of_the_gateway_deletes_the_job_that_cannot_be_changed():
    """In every section that applies an overlay, but where labels move, and where a setting changes that the Job has not got."""
    assert "name: cases-upgrade" in (ROOT / "k8s" / "components" / "postgres" / "job.yaml").read_text()
    applying = {name for name, text in SECTIONS.items() if re.search("kubectl apply -k|next `apply`", text)}
    deleting = {name for name, text in SECTIONS.items() if "kubectl delete job cases-upgrade --ignore-not-found" in text}

    assert applying - deleting == {"Roll back a model version", "Change a setting"}
    assert {"Deploy and upgrade", "Roll back the gateway"} <= deleting
    assert "also changes the Job: then all three commands" in SECTIONS["Change a setting"]
    # Whoever is told to set something is told how.
    told = [text for text in SECTIONS.values() if re.search(r"\bset `GATEWAY_\w+`", text)]
    assert told
    assert all("(#change-a-setting)" in text for text in told)


def test_a_version_is_rolled_back_where_the_servers_read_it():
    assert POLLING in SERVING
    assert POLLING not in EMBEDDED
    cluster, _, others = SECTIONS["Roll back a model version"].partition("With the component `embedded`")

    assert POLLING in cluster
    assert "kubectl apply -k" in cluster
    assert "python -m serving status" in cluster
    assert "python -m serving rollback --" not in cluster
    assert "python -m serving rollback --" in others


def test_what_was_closed_can_be_opened():
    text = SECTIONS["Close the service"]

    assert re.search(r"^kubectl annotate scaledobject gateway autoscaling\.keda\.sh/paused-replicas=0", text, re.MULTILINE)
    assert re.search(r"^kubectl annotate scaledobject gateway autoscaling\.keda\.sh/paused-replicas- ", text, re.MULTILINE)


@pytest.mark.parametrize("section", ["Deploy and upgrade", "Roll back the gateway", "Scale", "Close the service"])
def test_the_statefulset_of_the_audit_record_is_named(section):
    assert "deployment/gateway" in SECTIONS[section]
    assert "statefulset/gateway" in SECTIONS[section]


def test_the_audit_alert_knows_its_statefulset_alone():
    assert "deployment/gateway" not in SECTIONS["DermserveAuditFails"]
    assert "kubectl logs statefulset/gateway" in SECTIONS["DermserveAuditFails"]


def test_the_week_in_which_drift_is_silent_is_told():
    assert "first week" in SECTIONS["DermserveScoresDrifted"]
    assert "(#dermservescoresdrifted)" in SECTIONS["Deploy and upgrade"]
