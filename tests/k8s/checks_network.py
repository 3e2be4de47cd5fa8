"""Who may talk to whom, where anything is forbidden."""

from urllib.parse import urlsplit

from tests.k8s.checks_gateway import settings_or_none
from tests.k8s.objects import NAME_LABEL, check, environment, find, matches, of_kind, pod_of, pods

PORTS = {"https": 443, "http": 80, "rediss": 6379, "redis": 6379, "postgresql+psycopg": 5432}


def is_enforced(objects):
    return find(objects, "NetworkPolicy", "default-deny") is not None


def rules(objects, labels, direction):
    """All that is allowed to pods with these labels."""
    return [
        rule
        for policy in of_kind(objects, "NetworkPolicy")
        if policy["spec"]["podSelector"] and matches(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get(direction, [])
    ]


def reaches(rule, side, port, *, app=None, namespace=None, outside=False):
    if port not in [one["port"] for one in rule.get("ports", [{"port": port}])]:
        return False
    for peer in rule[side]:
        selected = peer.get("podSelector", {}).get("matchLabels", {})
        there = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
        if outside and "ipBlock" in peer:
            return True
        if app and there is None and selected == {NAME_LABEL: app}:
            return True
        if namespace and there == namespace:
            return True
    return False


def wanted_of_gateway(settings):
    """Where its settings lead: port, and how it is reached."""
    yield 8500, {"app": "serving"}
    yield 53, {"namespace": "kube-system"}
    for address in (settings.redis_url, settings.cases_database, settings.traces_endpoint, settings.oidc_issuer):
        parts = urlsplit(address)
        if parts.hostname:
            port = parts.port or PORTS[parts.scheme]
            inside = parts.hostname.split(".")
            yield port, {"namespace": inside[1]} if inside[-1] == "svc" else {"outside": True}


@check
def gateways_reach_what_they_need_and_no_more(objects):
    settings = settings_or_none(objects)
    if is_enforced(objects) and settings:
        allowed = rules(objects, pod_of(objects, "gateway").labels, "egress")
        wanted = list(wanted_of_gateway(settings))
        for port, how in wanted:
            if not any(reaches(rule, "to", port, **how) for rule in allowed):
                yield f"a gateway needs port {port} of {how}"
        for rule in allowed:
            if "ports" not in rule or not any(reaches(rule, "to", port, **how) for port, how in wanted):
                yield f"a gateway may reach {rule}, which nothing in its settings asks for"


@check
def everything_is_denied_first(objects):
    policy = find(objects, "NetworkPolicy", "default-deny")
    if policy and (policy["spec"]["podSelector"] or sorted(policy["spec"]["policyTypes"]) != ["Egress", "Ingress"]):
        yield "what is not listed is not denied"
    for policy in of_kind(objects, "NetworkPolicy"):
        if sorted(policy["spec"]["policyTypes"]) != ["Egress", "Ingress"]:
            yield f"NetworkPolicy {policy['metadata']['name']} says nothing of one direction"


@check
def policies_select_something(objects):
    for policy in of_kind(objects, "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        if selector and not any(matches(selector, pod.labels) for pod in pods(objects)):
            yield f"NetworkPolicy {policy['metadata']['name']} is about no pod"


@check
def whoever_asks_gets_in(objects):
    if not is_enforced(objects):
        return
    wanted = [
        ("serving", 8500, {"app": "gateway"}),
        ("serving", 8501, {"namespace": "monitoring-example"}),
        ("gateway", 8000, {"namespace": "monitoring-example"}),
    ]
    if of_kind(objects, "Gateway"):
        wanted.append(("gateway", 8000, {"namespace": "gateway-example"}))
    if any(pod.app == "load-test" for pod in pods(objects)):
        wanted.append(("gateway", 8000, {"app": "load-test"}))
    for app, port, how in wanted:
        if not any(reaches(rule, "from", port, **how) for rule in rules(objects, pod_of(objects, app).labels, "ingress")):
            yield f"{how} does not get to port {port} of {app}"
    for app in ("gateway", "serving"):
        for rule in rules(objects, pod_of(objects, app).labels, "ingress"):
            if "ports" not in rule or not rule.get("from"):
                yield f"{app} takes more than it has to: {rule}"


@check
def model_servers_call_nobody_but_their_store(objects):
    if is_enforced(objects):
        pod = pod_of(objects, "serving")
        stores = [environment(objects, one) for one in pod.spec.get("initContainers", [])]
        wanted = {443, 53} if any("MODELS_ADDRESS" in seen for seen in stores) else set()
        given = {port["port"] for rule in rules(objects, pod.labels, "egress") for port in rule.get("ports", [{"port": "any"}])}
        if given != wanted:
            yield f"a model server may reach ports {given}, and needs {wanted}"


@check
def jobs_are_fenced_in(objects):
    for pod in pods(objects):
        if not pod.runs_on:
            mine = [
                policy
                for policy in of_kind(objects, "NetworkPolicy")
                if policy["spec"]["podSelector"] and matches(policy["spec"]["podSelector"], pod.labels)
            ]
            if not mine or not any(
                reaches(rule, "to", 53, namespace="kube-system") for rule in rules(objects, pod.labels, "egress")
            ):
                yield f"{pod.name} has no policy of its own, or cannot look up names"
