"""What one object says of another: names, selectors, ports, claims, secrets."""

import base64
import functools
import json
import re

from tests.k8s.objects import LONG_RUNNING, check, environment, find, matches, of_kind, pods
from tests.k8s.rendering import NAMESPACE
from tests.processes import ROOT

CLUSTER_WIDE = ("Namespace", "PriorityClass")
SECRET_ROW = re.compile(r"^ *\| `([a-z-]+)` \| ((?:`[\w.-]+`(?:, )?)+) \|", re.MULTILINE)
HASHED = re.compile(r".+-[bcdfghkmt2-9]{10}")
SAYS_SECRET = re.compile(r"password|secret|token|credential|_key\b|api_?key", re.IGNORECASE)


@functools.cache
def documented_secrets():
    """Name to keys: what docs/kubernetes.md tells people to make."""
    rows = SECRET_ROW.findall((ROOT / "docs" / "kubernetes.md").read_text())
    return {name: set(re.findall(r"`([^`]+)`", keys)) for name, keys in rows}


def secret_keys(objects, name):
    """Of a Secret that is rendered, or that people make; None where neither is known."""
    rendered = find(objects, "Secret", name)
    return set(rendered["data"]) if rendered else documented_secrets().get(name)


@check
def namespaces_are_set(objects):
    for item in objects:
        if item["kind"] not in CLUSTER_WIDE and item["metadata"].get("namespace") != NAMESPACE:
            yield f"{item['kind']}/{item['metadata']['name']} is not in {NAMESPACE}"
    namespace = find(objects, "Namespace", NAMESPACE)
    if namespace is None:
        yield f"no namespace {NAMESPACE}"
    elif namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "Pod Security is not enforced"


@check
def configuration_exists(objects):
    for pod in pods(objects):
        named = [volume["configMap"]["name"] for volume in pod.spec.get("volumes", []) if "configMap" in volume]
        sources = [source for one in pod.containers for source in one.get("envFrom", [])]
        named += [source["configMapRef"]["name"] for source in sources if "configMapRef" in source]
        yield from (f"{pod.name}: no ConfigMap {name}" for name in named if not find(objects, "ConfigMap", name))


@check
def configuration_has_a_hash(objects):
    for item in of_kind(objects, "ConfigMap"):
        name = item["metadata"]["name"]
        if ("models.config" in item["data"]) == bool(HASHED.fullmatch(name)):
            yield f"{name}: pods are replaced exactly when it changes, but for models-config, which changes while they run"


@check
def secrets_are_known(objects):
    for pod in pods(objects):
        named = [volume["secret"]["secretName"] for volume in pod.spec.get("volumes", []) if "secret" in volume]
        yield from (f"{pod.name}: nobody is told of Secret {name}" for name in named if secret_keys(objects, name) is None)
    references = [
        (endpoint["authorization"]["credentials"]["name"], endpoint["authorization"]["credentials"]["key"])
        for monitor in of_kind(objects, "PodMonitor")
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
        if "authorization" in endpoint
    ]
    references += [
        (reference["name"], "tls.crt")
        for gateway in of_kind(objects, "Gateway")
        for listener in gateway["spec"]["listeners"]
        for reference in listener.get("tls", {}).get("certificateRefs", [])
    ]
    yield from (
        f"nobody is told of Secret {name} with {key}"
        for name, key in references
        if key not in (secret_keys(objects, name) or ())
    )


@check
def secrets_are_files(objects):
    for pod in pods(objects):
        for container in pod.containers:
            taken = [entry["name"] for entry in container.get("env", []) if "secretKeyRef" in entry.get("valueFrom", {})]
            taken += [str(source["secretRef"]) for source in container.get("envFrom", []) if "secretRef" in source]
            yield from (f"{pod.name}: {name} is in the environment" for name in taken)
            for name, value in environment(objects, container).items():
                if SAYS_SECRET.search(name) and not value.startswith("/") and not name.endswith("_CLAIM"):
                    yield f"{pod.name}: {name} is written out"


@check
def nothing_secret_is_rendered(objects):
    for secret in of_kind(objects, "Secret"):
        for key, value in secret.get("data", {}).items():
            # Hashes of keys open nothing; that is what the local overlay has.
            if key != "keys.json" or any(
                set(entry) - {"id", "sha256", "permissions", "not_before", "expires"}
                for entry in json.loads(base64.b64decode(value))["keys"]
            ):
                yield f"Secret {secret['metadata']['name']} has {key} in it"
        yield from (f"Secret {secret['metadata']['name']} has {key} in it" for key in secret.get("stringData", {}))


@check
def accounts_exist(objects):
    for pod in pods(objects):
        name = pod.spec.get("serviceAccountName")
        if pod.runs_on and not name:
            yield f"{pod.name} has no account of its own"
        if name and not find(objects, "ServiceAccount", name):
            yield f"{pod.name}: no ServiceAccount {name}"


@check
def priority_classes_exist(objects):
    for pod in pods(objects):
        name = pod.spec.get("priorityClassName")
        if name and not find(objects, "PriorityClass", name):
            yield f"{pod.name}: no PriorityClass {name}"


@check
def claims_exist(objects):
    claimed = set()
    for pod in pods(objects):
        for volume in pod.spec.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                claimed.add(volume["persistentVolumeClaim"]["claimName"])
    rendered = {item["metadata"]["name"] for item in of_kind(objects, "PersistentVolumeClaim")}
    yield from (f"no claim {name}" for name in claimed - rendered)


@check
def mounts_have_a_volume(objects):
    for pod in pods(objects):
        for container in pod.containers:
            mounted = [mount["name"] for mount in container.get("volumeMounts", [])]
            yield from (f"{pod.name} {container['name']}: no volume {name}" for name in mounted if not pod.volume(name))


@check
def workloads_select_their_pods(objects):
    for pod in pods(objects):
        if pod.runs_on and not matches(pod.owner["spec"]["selector"], pod.labels):
            yield f"{pod.name} does not select its own pods"


@check
def services_lead_to_pods(objects):
    for service in of_kind(objects, "Service"):
        selected = [pod for pod in pods(objects) if matches({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        if not selected:
            yield f"Service {service['metadata']['name']} leads to no pod"
        for pod in selected:
            ports = {port["name"] for port in pod.main["ports"]}
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in ports:
                    yield f"Service {service['metadata']['name']}: {pod.name} has no port {port['targetPort']}"


@check
def disruption_budgets_fit(objects):
    budgets = of_kind(objects, "PodDisruptionBudget")
    for pod in pods(objects):
        if pod.runs_on:
            mine = [budget for budget in budgets if matches(budget["spec"]["selector"], pod.labels)]
            if [budget["spec"].get("maxUnavailable") for budget in mine] != [1]:
                yield f"{pod.name} has {len(mine)} budgets, or one that lets more than one pod go, or none"


@check
def monitors_find_their_pods(objects):
    for monitor in of_kind(objects, "PodMonitor"):
        selected = [pod for pod in pods(objects) if matches(monitor["spec"]["selector"], pod.labels)]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if not any(endpoint["port"] == port["name"] for pod in selected for port in pod.main["ports"]):
                yield f"PodMonitor {monitor['metadata']['name']} finds no port {endpoint['port']}"


@check
def scalers_have_their_target(objects):
    for scaler in of_kind(objects, "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        scaled = find(objects, target["kind"], target["name"]) if target["kind"] in LONG_RUNNING else None
        if scaled is None:
            yield f"no {target['kind']}/{target['name']} to scale"
        elif "replicas" in scaled["spec"]:
            yield f"{target['name']} has a number of replicas, which undoes the scaler's whenever it is applied"


@check
def routes_lead_to_services(objects):
    for route in of_kind(objects, "HTTPRoute"):
        name = route["metadata"]["name"]
        for parent in route["spec"]["parentRefs"]:
            gateway = find(objects, "Gateway", parent["name"])
            listeners = [listener["name"] for listener in gateway["spec"]["listeners"]] if gateway else []
            if parent["sectionName"] not in listeners:
                yield f"HTTPRoute {name}: no listener {parent['name']}/{parent['sectionName']}"
        for backend in [backend for rule in route["spec"]["rules"] for backend in rule.get("backendRefs", [])]:
            service = find(objects, "Service", backend["name"])
            if not service or backend["port"] not in [port["port"] for port in service["spec"]["ports"]]:
                yield f"HTTPRoute {name}: no Service {backend['name']}:{backend['port']}"
