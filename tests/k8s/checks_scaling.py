"""What follows the load, and what is run on demand: scalers, and the workers of a training."""

import functools
import re

import promql_parser

from tests.k8s.checks_gateway import settings_or_none
from tests.k8s.objects import check, find, of_kind
from tests.processes import ROOT

METRICS = re.compile(r"(?<![\w:])(?:dermserve_gateway_|:tensorflow:)[\w:]+")


@functools.cache
def known_metrics():
    registered = set(re.findall(r"`(dermserve_gateway_\w+)`", (ROOT / "docs" / "monitoring.md").read_text()))
    return registered | set(
        re.findall(r"\"(:tensorflow:[\w:]+)\"", (ROOT / "serving" / "embedded" / "monitoring.py").read_text())
    )


@check
def scalers_ask_for_what_exists(objects):
    known = known_metrics()
    for scaler in of_kind(objects, "ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            try:
                promql_parser.parse(query)
            except ValueError as error:
                yield f"{scaler['metadata']['name']}: {error}"
            named = {re.sub(r"_(sum|count|bucket)$", "", name) for name in METRICS.findall(query)}
            if not named or named - known:
                yield f"{scaler['metadata']['name']} asks for {sorted(named - known) or 'nothing'}, which nobody counts"
            if trigger["metadata"].get("ignoreNullValues") != "false":
                yield f"{scaler['metadata']['name']} shrinks when Prometheus is away"


@check
def scalers_ask_about_their_own_namespace(objects):
    """kustomize's `namespace:` does not reach into a query."""
    for scaler in of_kind(objects, "ScaledObject"):
        own = f'namespace="{scaler["metadata"]["namespace"]}"'
        for trigger in scaler["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            if not len(METRICS.findall(query)) == query.count("namespace=") == query.count(own):
                yield f"{scaler['metadata']['name']} does not ask for {own} alone"


@check
def gateways_scale_before_they_refuse(objects):
    settings, scaler = settings_or_none(objects), find(objects, "ScaledObject", "gateway")
    if settings and scaler:
        at_work = settings.workers * settings.threads
        if float(scaler["spec"]["triggers"][0]["metadata"]["threshold"]) >= at_work:
            yield f"a gateway works on {at_work} pictures and is scaled when there are more"


@check
def scalers_are_slow_to_shrink(objects):
    for scaler in of_kind(objects, "ScaledObject"):
        behavior = scaler["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        wanted = 900 if scaler["metadata"]["name"] == "serving" else 300
        if behavior["scaleDown"]["stabilizationWindowSeconds"] < wanted or scaler["spec"]["minReplicaCount"] < 2:
            yield f"{scaler['metadata']['name']} gives replicas back too soon, or its last but one"


@check
def workers_of_training_find_each_other(objects):
    for job in of_kind(objects, "TrainJob"):
        spec = job["spec"]
        runtime = find(objects, spec["runtimeRef"]["kind"], spec["runtimeRef"]["name"])
        if runtime is None:
            yield f"no {spec['runtimeRef']['kind']}/{spec['runtimeRef']['name']}"
            continue
        workers = {entry["name"]: entry["value"] for entry in spec["trainer"]["env"]}.get("WORKERS")
        if workers != str(spec["trainer"]["numNodes"]):
            yield f"{spec['trainer']['numNodes']} nodes, and each waits for {workers} workers"
        (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        script = replicated["template"]["spec"]["template"]["spec"]["containers"][0]["args"][0]
        name = job["metadata"]["name"]
        if f"{name}-{replicated['name']}-0-$i.{name}:2222" not in script:
            yield "the workers' addresses are not those that a JobSet of this name gives"
