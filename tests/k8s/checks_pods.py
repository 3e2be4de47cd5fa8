"""What every pod keeps: security, resources, probes, images."""

import re

from tests.k8s.objects import NAME_LABEL, check, flags, of_kind, pods

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
RESTRICTED_VOLUMES = {"configMap", "emptyDir", "image", "persistentVolumeClaim", "projected", "secret", "downwardAPI"}
PINNED = re.compile(r"[\w./:-]+(:v?\d[\w.-]*|@sha256:[0-9a-f]{64})")
METADATA = "/v1/models/lesion/labels/stable/metadata"
PATHS = {
    ("gateway", "startupProbe"): "/health/live",
    ("gateway", "readinessProbe"): "/health/ready",
    ("gateway", "livenessProbe"): "/health/live",
    ("serving", "startupProbe"): METADATA,
    ("serving", "readinessProbe"): METADATA,
    ("serving", "livenessProbe"): "/v1/models/lesion",
}


def each_container(objects):
    for pod in pods(objects):
        for container in pod.containers:
            yield pod, container, f"{pod.name} {container['name']}"


@check
def users_are_not_root(objects):
    for pod in pods(objects):
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{pod.name} may run as root"
        for container in pod.containers:
            own = container.get("securityContext", {})
            if own.get("runAsNonRoot") is False or own.get("runAsUser") == 0:
                yield f"{pod.name} {container['name']} runs as root"


@check
def seccomp_is_on(objects):
    for pod in pods(objects):
        if pod.spec.get("securityContext", {}).get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod.name} has no seccomp profile"


@check
def root_file_systems_are_read_only(objects):
    for _, container, name in each_container(objects):
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"{name} can write its image"


@check
def capabilities_are_dropped(objects):
    for _, container, name in each_container(objects):
        capabilities = container.get("securityContext", {}).get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or "add" in capabilities:
            yield f"{name} keeps capabilities"


@check
def privileges_do_not_grow(objects):
    for _, container, name in each_container(objects):
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{name} may become more"


@check
def hosts_are_left_alone(objects):
    for pod in pods(objects):
        yield from (f"{pod.name} has {field}" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(field))
        for volume in pod.spec.get("volumes", []):
            if not RESTRICTED_VOLUMES.intersection(volume):
                yield f"{pod.name} mounts {volume['name']}, which Pod Security `restricted` forbids"
        for container in pod.containers:
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{pod.name} takes a port of its node"


@check
def tokens_and_links_are_off(objects):
    for pod in pods(objects):
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.name} gets a token of the API server"
        if pod.spec.get("enableServiceLinks") is not False:
            yield f"{pod.name} gets GATEWAY_PORT and the like"


@check
def memory_is_bounded_and_processors_are_not(objects):
    for _, container, name in each_container(objects):
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        yield from (f"{name} requests no {resource}" for resource in ("cpu", "memory") if resource not in requests)
        if "memory" not in limits:
            yield f"{name} may take all memory of its node"
        if "cpu" in limits:
            yield f"{name} has a limit of cpu"


@check
def scratch_space_is_bounded(objects):
    for pod in pods(objects):
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{pod.name}: {volume['name']} may fill its node's disk"


@check
def images_are_pinned(objects):
    for pod in pods(objects):
        images = [container["image"] for container in pod.containers]
        images += [volume["image"]["reference"] for volume in pod.spec.get("volumes", []) if "image" in volume]
        yield from (f"{pod.name}: {image} may change" for image in images if not PINNED.fullmatch(image))


@check
def probes_ask_what_they_should(objects):
    for pod in pods(objects):
        if not pod.runs_on:
            continue
        ports = {port["name"] for port in pod.main["ports"]}
        for probe in PROBES:
            asked = pod.main.get(probe, {}).get("httpGet", {})
            if asked.get("path") != PATHS[pod.app, probe]:
                yield f"{pod.name}: {probe} asks {asked.get('path')}, not {PATHS[pod.app, probe]}"
            elif asked["port"] not in ports:
                yield f"{pod.name}: {probe} asks a port that is none of {sorted(ports)}"


@check
def ports_are_those_that_are_listened_on(objects):
    for pod in pods(objects):
        if pod.app == "serving":
            declared = {port["name"]: str(port["containerPort"]) for port in pod.main["ports"]}
            given = flags(pod.main)
            if declared != {"grpc": given.get("port"), "rest": given.get("rest_api_port")}:
                yield f"{pod.name} listens elsewhere than on {declared}"


@check
def everything_is_labelled(objects):
    for item in objects:
        labels = item["metadata"].get("labels", {})
        if item["kind"] not in ("ConfigMap", "Secret") and labels.get("app.kubernetes.io/part-of") != "dermserve":
            yield f"{item['kind']}/{item['metadata']['name']} is part of nothing"
    for pod in pods(objects):
        if pod.labels.get("app.kubernetes.io/part-of") != "dermserve" or NAME_LABEL not in pod.labels:
            yield f"pods of {pod.name} have no name, or are part of nothing"


@check
def priorities_are_given(objects):
    for pod in pods(objects):
        expected = "dermserve-answering" if pod.runs_on else "dermserve-background"
        if pod.spec.get("priorityClassName") != expected:
            yield f"{pod.name} is not {expected}"
    answering, background = (
        next(iter([item["value"] for item in of_kind(objects, "PriorityClass") if item["metadata"]["name"] == name]), None)
        for name in ("dermserve-answering", "dermserve-background")
    )
    if answering is not None and background is not None and answering <= background:
        yield "what trains is as important as what answers"


@check
def replicas_are_spread(objects):
    for pod in pods(objects):
        if pod.runs_on:
            spread = {
                constraint["topologyKey"]
                for constraint in pod.spec.get("topologySpreadConstraints", [])
                if constraint["labelSelector"]["matchLabels"] == {NAME_LABEL: pod.app}
            }
            if spread != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
                yield f"{pod.name} may stand on one node"


@check
def jobs_come_to_an_end(objects):
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "CronJob":
            if spec.get("concurrencyPolicy") != "Forbid":
                yield f"{item['metadata']['name']} may run beside itself"
            spec = spec["jobTemplate"]["spec"]
        elif item["kind"] != "Job":
            continue
        elif "ttlSecondsAfterFinished" not in spec:
            yield f"{item['metadata']['name']} stays for good"
        yield from (
            f"{item['metadata']['name']} has no {field}"
            for field in ("backoffLimit", "activeDeadlineSeconds")
            if field not in spec
        )
