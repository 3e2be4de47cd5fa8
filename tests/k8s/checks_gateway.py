"""What the gateway is told, and who else has to agree: its settings, their files, the way in, the records."""

import dataclasses
import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from gateway.settings import Settings, SettingsError
from tests.k8s.checks_references import secret_keys
from tests.k8s.objects import check, environment, find, of_kind, pod_of, pods

FILES = [field.name for field in dataclasses.fields(Settings) if field.name.endswith("_file")]


def settings_of(objects):
    """The gateway's, as it will read them.

    Raises:
        SettingsError: it will not start.
    """
    return Settings.from_env(environment(objects, pod_of(objects, "gateway").main))


def settings_or_none(objects):
    """For the checks that need them; that they are wrong is another check's to say."""
    try:
        return settings_of(objects)
    except SettingsError:
        return None


@check
def settings_are_accepted(objects):
    for pod in pods(objects):
        seen = environment(objects, pod.main)
        if any(name.startswith("GATEWAY_") for name in seen):
            try:
                Settings.from_env(seen)
            except SettingsError as error:
                yield f"{pod.name}: {error}"


@check
def files_of_settings_are_mounted(objects):
    for pod in pods(objects):
        seen = environment(objects, pod.main)
        # Two commands read but these of them.
        of_commands = [
            name for name in FILES if name.startswith(("cases", "audit" if "purge" in pod.main["command"] else "cases"))
        ]
        for name in FILES if pod.app == "gateway" else of_commands:
            path = PurePosixPath(seen.get(f"GATEWAY_{name.upper()}", ""))
            if not path.name:
                continue
            mount = next(
                (mount for mount in pod.main["volumeMounts"] if PurePosixPath(mount["mountPath"]) == path.parent), None
            )
            if mount is None or "subPath" in mount:
                yield f"{pod.name}: {path} is in no folder that is mounted"
            volume = pod.volume(mount["name"]) if mount else None
            if volume and "secret" in volume and path.name not in (secret_keys(objects, volume["secret"]["secretName"]) or ()):
                yield f"{pod.name}: nobody is told to put {path.name} into {volume['secret']['secretName']}"


@check
def model_servers_are_found_one_by_one(objects):
    given = environment(objects, pod_of(objects, "gateway").main).get("GATEWAY_MODEL_SERVER", "")
    found = re.fullmatch(r"dns:///([\w.-]+):(\d+)", given)
    service = find(objects, "Service", found[1]) if found else None
    if service is None or service["spec"].get("clusterIP") != "None":
        yield f"{given!r} does not look up a Service with an address for each pod"
    elif int(found[2]) not in [port["port"] for port in service["spec"]["ports"] if port["name"] == "grpc"]:
        yield f"{given!r} is not the gRPC port"


@check
def proxies_wait_longer_than_the_gateway(objects):
    settings = settings_or_none(objects)
    for route in of_kind(objects, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            waits = rule.get("timeouts", {}).get("request")
            if settings and "backendRefs" in rule and not (waits and int(waits.removesuffix("s")) > settings.request_budget_s):
                yield f"HTTPRoute {route['metadata']['name']} gives up before the gateway does"


@check
def the_public_address_is_one(objects):
    seen = environment(objects, pod_of(objects, "gateway").main)
    host = urlsplit(seen.get("GATEWAY_PUBLIC_URL", "")).hostname
    for gateway in of_kind(objects, "Gateway"):
        hosts = {listener["hostname"] for listener in gateway["spec"]["listeners"]}
        hosts |= {name for route in of_kind(objects, "HTTPRoute") for name in route["spec"]["hostnames"]}
        if hosts != {host}:
            yield f"GATEWAY_PUBLIC_URL is {host}, and {', '.join(sorted(hosts))} is what the Gateway takes"
        if seen.get("GATEWAY_PROXIES", "0") == "0":
            yield "GATEWAY_PROXIES is 0 behind a proxy: all who come count as one address"
        for listener in gateway["spec"]["listeners"]:
            if listener["protocol"] == "HTTP":
                routes = [
                    route["spec"]["rules"]
                    for route in of_kind(objects, "HTTPRoute")
                    if listener["name"] in [parent["sectionName"] for parent in route["spec"]["parentRefs"]]
                ]
                if [rule for rules in routes for rule in rules if "backendRefs" in rule]:
                    yield "pictures get in without TLS"


@check
def the_audit_outlives_its_pod(objects):
    for pod in pods(objects):
        file = environment(objects, pod.main).get("GATEWAY_AUDIT_FILE")
        writes = pod.app == "gateway" or "purge" in pod.main["command"]
        if not file or not writes:
            continue
        folder = str(PurePosixPath(file).parent)
        mount = next((mount for mount in pod.main["volumeMounts"] if mount["mountPath"] == folder), None)
        volume = pod.volume(mount["name"]) if mount else {}
        kept = "ownClaim" in volume if pod.runs_on else "persistentVolumeClaim" in volume
        retention = pod.owner["spec"].get("persistentVolumeClaimRetentionPolicy", {}).values()
        if not kept or (pod.runs_on and set(retention) != {"Retain"}):
            yield f"{pod.name} writes its audit record where it is lost"


@check
def jobs_do_not_change_with_the_settings(objects):
    """Kubernetes refuses a Job that has changed, and the name of a ConfigMap changes with its content."""
    for pod in pods(objects):
        if pod.owner["kind"] == "Job":
            seen = environment(objects, {"envFrom": pod.main.get("envFrom", [])})
            others = [name for name in seen if name.startswith("GATEWAY_") and not name.startswith("GATEWAY_CASES_")]
            if others:
                yield f"{pod.name} cannot be applied again when {others[0]} changes"


@check
def cases_have_their_tables(objects):
    if "GATEWAY_CASES_DATABASE" in environment(objects, pod_of(objects, "gateway").main):
        commands = [pod.main.get("command", []) for pod in pods(objects)]
        for command in ("upgrade", "purge"):
            if not any(given[2:4] == ["gateway.cases", command] for given in commands):
                yield f"nobody runs python -m gateway.cases {command}"
