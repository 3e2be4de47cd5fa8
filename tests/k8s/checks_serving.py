"""How the model server runs: flags, files, labels, hardware; and when it and its gateways stop."""

import functools
import re
import tempfile
from pathlib import Path, PurePosixPath

from serving.models_config import read_models_config
from serving.release import ReleaseError
from tests.k8s.checks_gateway import settings_or_none
from tests.k8s.objects import check, find, flags, of_kind, pod_of, pods
from tests.processes import ROOT

CONFIG = ROOT / "serving" / "config"
OF_THE_CLUSTER = {"model_config_file_poll_wait_seconds", "grpc_channel_arguments"}
"""Flags that make sense only where a file is mounted, and with replicas that come and go. The embedded one has the second."""

FOLDERS = {"model_config_file", "batching_parameters_file", "monitoring_config_file"}
MARGIN_S = 5
"""For a process to end, after its last request."""

DNS_CACHE_S = 5
LOOK_UP_S = 30
"""gRPC's least time between two look-ups of a name."""


@functools.cache
def flags_of_up():
    """Those of `make up`, but for the ports, which it chooses."""
    text = (ROOT / "scripts" / "up.sh").read_text()
    body = text[text.index("start_model_server()") : text.index("start_gateway()")]
    given = dict(re.findall(r"--(\w+)=([^\s\"]+)", body.replace("$config", "/config")))
    return {name: value for name, value in given.items() if name not in ("port", "rest_api_port", "host")}


@check
def model_server_runs_as_make_up_runs_it(objects):
    given = flags(pod_of(objects, "serving").main)
    of_up = flags_of_up()
    for name in sorted(of_up.keys() | given.keys() - OF_THE_CLUSTER - {"port", "rest_api_port", "host"}):
        mine, its = given.get(name, ""), of_up.get(name, "")
        if name in FOLDERS:
            mine, its = PurePosixPath(mine).name, PurePosixPath(its).name
        if mine != its:
            yield f"--{name}={mine}, and make up has {its!r}"


@check
def model_servers_files_are_mounted(objects):
    pod = pod_of(objects, "serving")
    for name in FOLDERS:
        path = PurePosixPath(flags(pod.main).get(name, "/none"))
        mount = next((mount for mount in pod.main["volumeMounts"] if PurePosixPath(mount["mountPath"]) == path.parent), {})
        volume = pod.volume(mount.get("name")) or {}
        configuration = find(objects, "ConfigMap", volume.get("configMap", {}).get("name", ""))
        if configuration is None or path.name not in configuration["data"] or "subPath" in mount:
            yield f"--{name}={path} is in no ConfigMap that is mounted as a folder"


@functools.cache
def models_config(text):
    """As the command line of a roll-out reads it.

    Raises:
        ReleaseError: a server would serve half of it.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".config") as file:
        file.write(text)
        file.flush()
        return read_models_config(Path(file.name))


@check
def labels_can_move(objects):
    pod = pod_of(objects, "serving")
    is_embedded = "serving.embedded" in pod.main["command"]
    wait = float(flags(pod.main).get("model_config_file_poll_wait_seconds", 0))
    if not is_embedded and not 0 < wait <= 60:
        yield "nobody looks at models.config again: labels stay where they are"
    for config in of_kind(objects, "ConfigMap"):
        if "models.config" in config["data"]:
            try:
                deployment = models_config(config["data"]["models.config"])
            except ReleaseError as error:
                yield f"models.config: {error}"
            else:
                if deployment.base_path not in [f"{mount['mountPath']}/lesion" for mount in pod.main["volumeMounts"]]:
                    yield f"the versions are not mounted at {deployment.base_path}"


@check
def batches_fit_the_hardware(objects):
    pod = pod_of(objects, "serving")
    on_gpu = "nvidia.com/gpu" in pod.main["resources"]["limits"]
    wanted = (CONFIG / ("batching.gpu.config" if on_gpu else "batching.config")).read_text()
    given = [item["data"]["batching.config"] for item in of_kind(objects, "ConfigMap") if "batching.config" in item["data"]]
    if given != [wanted]:
        yield f"batching.config is not serving/config's for a {'GPU' if on_gpu else 'CPU'}"


@check
def gpus_are_found_and_not_surged_for(objects):
    for pod in pods(objects):
        if any("nvidia.com/gpu" in one["resources"].get("limits", {}) for one in pod.containers):
            tolerated = [one["key"] for one in pod.spec.get("tolerations", [])]
            if "nvidia.com/gpu" not in tolerated or "nvidia.com/gpu.present" not in pod.spec.get("nodeSelector", {}):
                yield f"{pod.name} does not get onto a node with a GPU"
            if pod.app == "serving" and "gpu" not in pod.main["image"]:
                yield f"{pod.name} runs an image without CUDA"
        if pod.owner["kind"] == "Deployment":
            rolling = pod.owner["spec"]["strategy"]["rollingUpdate"]
            scarce = any("nvidia.com/gpu" in one["resources"].get("limits", {}) for one in pod.containers)
            wanted = (0, 1) if scarce else (1, 0)
            if (rolling["maxSurge"], rolling["maxUnavailable"]) != wanted:
                yield f"{pod.name} is replaced with surge {rolling['maxSurge']}, unavailable {rolling['maxUnavailable']}"


def pre_stop_s(pod):
    return pod.main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)


@check
def whoever_stops_has_the_time(objects):
    settings = settings_or_none(objects)
    if settings is None:
        return
    gateway, serving = pod_of(objects, "gateway"), pod_of(objects, "serving")
    graceful_s = round(settings.drain_s + settings.request_budget_s)
    if pre_stop_s(gateway) < DNS_CACHE_S or settings.drain_s < gateway.main["readinessProbe"]["periodSeconds"]:
        yield "a gateway closes before everybody has seen that it goes"
    needed = pre_stop_s(gateway) + graceful_s
    if gateway.spec["terminationGracePeriodSeconds"] < needed + MARGIN_S:
        yield f"a gateway is killed before its {needed} s are over"
    if pre_stop_s(serving) < needed + MARGIN_S:
        yield f"a model server stops while a gateway, told to stop in the same moment, still has {needed} s"
    arguments = dict(pair.split("=") for pair in flags(serving.main).get("grpc_channel_arguments", "").split(",") if pair)
    age_s = int(arguments.get("grpc.max_connection_age_ms", 0)) / 1000
    if not age_s or pre_stop_s(serving) < age_s * 1.1 + LOOK_UP_S + DNS_CACHE_S:
        yield "a model server stops before its gateways have looked up the addresses anew"
    if int(arguments.get("grpc.max_connection_age_grace_ms", 0)) / 1000 <= settings.predict_timeout_s:
        yield "a connection that has its age ends under a call"
    if serving.spec["terminationGracePeriodSeconds"] < pre_stop_s(serving) + settings.predict_timeout_s + MARGIN_S:
        yield "a model server is killed under its last calls"
