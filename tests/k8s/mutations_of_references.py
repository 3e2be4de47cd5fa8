"""References that are broken."""

from tests.k8s.mutations import breaks, drop, pod, rules, settings, simple, trigger
from tests.k8s.objects import find, pod_of, pods

simple("namespaces_are_set", "elsewhere", lambda o: find(o, "Service", "gateway")["metadata"].update(namespace="default"))
simple(
    "namespaces_are_set",
    "Pod Security is lax",
    lambda o: find(o, "Namespace", "dermserve")["metadata"]["labels"].update(
        {"pod-security.kubernetes.io/enforce": "baseline"}
    ),
)
simple(
    "configuration_exists",
    "another hash",
    lambda o: pod(o, "Job/load-test").main["envFrom"][0]["configMapRef"].update(name="load-test-bcdfghkmt2"),
)


@breaks("configuration_has_a_hash", "the file of the live versions has one")
def _(objects):
    find(objects, "ConfigMap", "models-config")["metadata"]["name"] = "models-config-bcdfghkmt2"
    for volume in pod_of(objects, "serving").spec["volumes"]:
        if volume.get("configMap", {}).get("name") == "models-config":
            volume["configMap"]["name"] = "models-config-bcdfghkmt2"


@breaks("configuration_has_a_hash", "the settings have none")
def _(objects):
    name = pod_of(objects, "gateway").main["envFrom"][0]["configMapRef"]["name"]
    find(objects, "ConfigMap", name)["metadata"]["name"] = "gateway"
    for one in [container for each in pods(objects) for container in each.containers]:
        for source in one.get("envFrom", []):
            if source["configMapRef"]["name"] == name:
                source["configMapRef"]["name"] = "gateway"


simple(
    "secrets_are_known", "nobody is told", lambda o: pod(o, "Job/load-test").volume("key")["secret"].update(secretName="other")
)
simple(
    "secrets_are_known",
    "a certificate nobody is told of",
    lambda o: find(o, "Gateway", "dermserve")["spec"]["listeners"][0]["tls"]["certificateRefs"][0].update(name="other"),
)
simple(
    "secrets_are_files",
    "a password in the environment",
    lambda o: pod_of(o, "gateway").main.update(env=[{"name": "REDIS_PASSWORD", "value": "open sesame"}]),
)
simple(
    "secrets_are_files",
    "a Secret as environment",
    lambda o: pod_of(o, "serving").containers[0]["envFrom"].append({"secretRef": {"name": "object-store"}}),
)
simple(
    "nothing_secret_is_rendered",
    "a password",
    lambda o: o.append(
        {"kind": "Secret", "metadata": {"name": "gateway-redis", "namespace": "dermserve"}, "data": {"password": "eA=="}}
    ),
)
simple("accounts_exist", "no account", lambda o: drop(o, "ServiceAccount", "gateway"))
simple("priority_classes_exist", "no class", lambda o: drop(o, "PriorityClass", "dermserve-background"))
simple("claims_exist", "no claim", lambda o: drop(o, "PersistentVolumeClaim", "training"))
simple("mounts_have_a_volume", "no volume", lambda o: pod(o, "Job/load-test").spec["volumes"].pop(0))
simple(
    "workloads_select_their_pods",
    "another label",
    lambda o: pod_of(o, "serving").owner["spec"]["selector"].update(matchLabels={"app.kubernetes.io/name": "other"}),
)
simple(
    "services_lead_to_pods",
    "no such port",
    lambda o: find(o, "Service", "gateway")["spec"]["ports"][0].update(targetPort="web"),
)
simple(
    "services_lead_to_pods",
    "nobody's label",
    lambda o: find(o, "Service", "gateway")["spec"].update(selector={"app.kubernetes.io/name": "gate"}),
)
simple(
    "disruption_budgets_fit",
    "no pod may ever go",
    lambda o: find(o, "PodDisruptionBudget", "serving")["spec"].update(maxUnavailable=0),
)
simple("disruption_budgets_fit", "no budget", lambda o: drop(o, "PodDisruptionBudget", "gateway"))


@breaks("monitors_find_their_pods", "a port that nobody has")
def _(objects):
    labels = {"app.kubernetes.io/part-of": "dermserve"}
    spec = {"selector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}, "podMetricsEndpoints": [{"port": "metrics"}]}
    metadata = {"name": "other", "namespace": "dermserve", "labels": labels}
    objects.append({"kind": "PodMonitor", "metadata": metadata, "spec": spec})


simple(
    "scalers_have_their_target",
    "a Deployment that has become a StatefulSet",
    lambda o: find(o, "ScaledObject", "gateway")["spec"]["scaleTargetRef"].update(kind="Deployment"),
)
simple("scalers_have_their_target", "two masters", lambda o: pod_of(o, "serving").owner["spec"].update(replicas=2))
simple(
    "routes_lead_to_services",
    "another port",
    lambda o: find(o, "HTTPRoute", "gateway")["spec"]["rules"][0]["backendRefs"][0].update(port=8080),
)
simple(
    "routes_lead_to_services",
    "no such listener",
    lambda o: find(o, "HTTPRoute", "gateway")["spec"]["parentRefs"][0].update(sectionName="tls"),
)
simple(
    "what_has_to_be_replaced_says_example",
    "a provider",
    lambda o: settings(o).update(GATEWAY_OIDC_ISSUER="https://id.hospital.org/realms/staff"),
)
simple(
    "what_has_to_be_replaced_says_example",
    "a Prometheus",
    lambda o: trigger(o, "gateway")["metadata"].update(serverAddress="http://prometheus-operated.monitoring.svc:9090"),
)
simple(
    "what_has_to_be_replaced_says_example",
    "an image that is mounted",
    lambda o: pod_of(o, "serving").spec["volumes"].append({"name": "x", "image": {"reference": "dermserve/models:0.1.0"}}),
)
simple(
    "what_has_to_be_replaced_says_example",
    "a class",
    lambda o: find(o, "Gateway", "dermserve")["spec"].update(gatewayClassName="istio"),
)


@breaks("what_has_to_be_replaced_says_example", "a namespace")
def _(objects):
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "gateway-system"}}
    rules(objects, "gateway", "ingress").append({"from": [{"namespaceSelector": selector}], "ports": [{"port": 8000}]})
