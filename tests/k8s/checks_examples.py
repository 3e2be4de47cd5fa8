"""What is a hospital's own has `example` in it until it is replaced, so that `grep example` finds it (docs/kubernetes.md)."""

import re

from tests.k8s.objects import check, find, of_kind, pods

HOST = re.compile(r"://(?:[^@/\s]*@)?([\w.-]+)")
OF_EVERY_CLUSTER = "kube-system"
THIS_MACHINE = "127.0.0.1"


def addresses(objects):
    """Where settings, scalers and mounted images lead, but for our own Services."""
    for config in of_kind(objects, "ConfigMap"):
        values = [value for value in config["data"].values() if "\n" not in value]
        yield from (host for value in values for host in HOST.findall(value) if not find(objects, "Service", host))
    for scaler in of_kind(objects, "ScaledObject"):
        yield from (trigger["metadata"]["serverAddress"] for trigger in scaler["spec"]["triggers"])
    for pod in pods(objects):
        yield from (volume["image"]["reference"] for volume in pod.spec.get("volumes", []) if "image" in volume)


def namespaces(objects):
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]:
            for peer in [*rule.get("from", []), *rule.get("to", [])]:
                yield from peer.get("namespaceSelector", {}).get("matchLabels", {}).values()


def ways_in(objects):
    for gateway in of_kind(objects, "Gateway"):
        yield gateway["spec"]["gatewayClassName"]
        yield from (listener["hostname"] for listener in gateway["spec"]["listeners"])
    for route in of_kind(objects, "HTTPRoute"):
        yield from route["spec"]["hostnames"]


@check
def what_has_to_be_replaced_says_example(objects):
    for name in {*addresses(objects), *namespaces(objects), *ways_in(objects)} - {OF_EVERY_CLUSTER, THIS_MACHINE}:
        if "example" not in name:
            yield f"{name} is somebody else's, and grep does not find it"
