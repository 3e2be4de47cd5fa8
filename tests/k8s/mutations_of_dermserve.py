"""What is between gateway, model server and their surroundings, broken."""

from tests.k8s.checks_serving import CONFIG
from tests.k8s.mutations import breaks, drop, pod, replace_argument, rules, settings, simple, trigger, without_port
from tests.k8s.objects import find, of_kind, pod_of

simple("settings_are_accepted", "a setting that is none", lambda o: settings(o).update(GATEWAY_DRAIN_SECONDS="5"))
simple("settings_are_accepted", "times in the wrong order", lambda o: settings(o).update(GATEWAY_PREDICT_TIMEOUT_S="9"))
simple("settings_are_accepted", "everybody may do everything", lambda o: settings(o).update(GATEWAY_IDENTITY="none"))


@breaks("files_of_settings_are_mounted", "mounted elsewhere")
def _(objects):
    mounts = pod_of(objects, "gateway").main["volumeMounts"]
    next(mount for mount in mounts if mount["name"] == "oidc")["mountPath"] = "/etc/dermserve/sign-in"


simple(
    "files_of_settings_are_mounted",
    "a file nobody is told to make",
    lambda o: settings(o).update({"GATEWAY_REDIS_PASSWORD_FILE": "/etc/dermserve/redis/other"}),
)
simple(
    "model_servers_are_found_one_by_one",
    "one address for all",
    lambda o: find(o, "Service", "serving")["spec"].pop("clusterIP"),
)
simple(
    "model_servers_are_found_one_by_one",
    "no look-up",
    lambda o: settings(o).update(GATEWAY_MODEL_SERVER="serving:8500"),
)
simple(
    "model_server_runs_as_make_up_runs_it",
    "fewer threads",
    lambda o: replace_argument(pod_of(o, "serving").main, "grpc_max_threads=96", "grpc_max_threads=8"),
)
simple(
    "model_servers_files_are_mounted",
    "mounted elsewhere",
    lambda o: replace_argument(pod_of(o, "serving").main, "/parameters/batching", "/config/batching"),
)
simple(
    "labels_can_move",
    "nobody looks",
    lambda o: replace_argument(pod_of(o, "serving").main, "file_poll_wait_seconds=10", "file_poll_wait_seconds=0"),
)


@breaks("labels_can_move", "a label of a version that is not loaded")
def _(objects):
    data = find(objects, "ConfigMap", "models-config")["data"]
    data["models.config"] = data["models.config"].replace('"stable" value: 3', '"stable" value: 4')


@breaks("batches_fit_the_hardware", "a processor's batches on a GPU")
def _(objects):
    for config in of_kind(objects, "ConfigMap"):
        if "batching.config" in config["data"]:
            config["data"]["batching.config"] = (CONFIG / "batching.config").read_text()


simple("gpus_are_found_and_not_surged_for", "no toleration", lambda o: pod_of(o, "serving").spec.pop("tolerations"))
simple(
    "gpus_are_found_and_not_surged_for",
    "a surge for a GPU that nobody has",
    lambda o: pod_of(o, "serving").owner["spec"]["strategy"]["rollingUpdate"].update(maxSurge=1, maxUnavailable=0),
)
simple(
    "gpus_are_found_and_not_surged_for",
    "no CUDA",
    lambda o: pod_of(o, "serving").main.update(image="docker.io/tensorflow/serving:2.20.0"),
)
simple("whoever_stops_has_the_time", "killed", lambda o: pod_of(o, "gateway").spec.update(terminationGracePeriodSeconds=30))
simple(
    "whoever_stops_has_the_time", "killed at once", lambda o: pod_of(o, "serving").spec.update(terminationGracePeriodSeconds=60)
)
simple("whoever_stops_has_the_time", "closed at once", lambda o: pod_of(o, "gateway").main.pop("lifecycle"))
simple("whoever_stops_has_the_time", "no drain", lambda o: settings(o).update(GATEWAY_DRAIN_S="0"))
simple(
    "whoever_stops_has_the_time",
    "the model server goes first",
    lambda o: pod_of(o, "serving").main["lifecycle"]["preStop"]["sleep"].update(seconds=20),
)
simple(
    "whoever_stops_has_the_time",
    "connections for good",
    lambda o: replace_argument(pod_of(o, "serving").main, "max_connection_age_ms=20000", "max_connection_age_ms=60000"),
)
simple(
    "whoever_stops_has_the_time",
    "connections end under calls",
    lambda o: replace_argument(pod_of(o, "serving").main, "age_grace_ms=10000", "age_grace_ms=5000"),
)
simple(
    "proxies_wait_longer_than_the_gateway",
    "ten seconds",
    lambda o: find(o, "HTTPRoute", "gateway")["spec"]["rules"][0]["timeouts"].update(request="10s"),
)
simple("the_public_address_is_one", "two addresses", lambda o: settings(o).update(GATEWAY_PUBLIC_URL="https://other.example"))
simple("the_public_address_is_one", "all are one address", lambda o: settings(o).update(GATEWAY_PROXIES="0"))
simple(
    "the_public_address_is_one",
    "pictures without TLS",
    lambda o: find(o, "HTTPRoute", "gateway")["spec"]["parentRefs"][0].update(sectionName="http"),
)
simple(
    "scalers_ask_for_what_exists",
    "a metric that is none",
    lambda o: trigger(o, "gateway")["metadata"].update(query='sum(dermserve_gateway_in_flight{namespace="dermserve"})'),
)
simple(
    "scalers_ask_for_what_exists",
    "not PromQL",
    lambda o: trigger(o, "gateway")["metadata"].update(query='sum(dermserve_gateway_pictures{namespace="dermserve"}'),
)
simple(
    "scalers_ask_for_what_exists",
    "shrinks blindly",
    lambda o: trigger(o, "serving")["metadata"].update(ignoreNullValues="true"),
)


@breaks("scalers_ask_about_their_own_namespace", "another namespace's pictures")
def _(objects):
    asked = trigger(objects, "serving")["metadata"]
    asked["query"] = asked["query"].replace('namespace="dermserve"', 'namespace="staging"', 1)


simple(
    "scalers_ask_about_their_own_namespace",
    "everybody's pictures",
    lambda o: trigger(o, "gateway")["metadata"].update(query='sum(dermserve_gateway_pictures{job="gateway"})'),
)
simple("gateways_scale_before_they_refuse", "too late", lambda o: trigger(o, "gateway")["metadata"].update(threshold="20"))


@breaks("scalers_are_slow_to_shrink", "gives a GPU back at once")
def _(objects):
    advanced = find(objects, "ScaledObject", "serving")["spec"]["advanced"]
    advanced["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = 0


simple(
    "the_audit_outlives_its_pod",
    "goes with the replica",
    lambda o: pod_of(o, "gateway").owner["spec"]["persistentVolumeClaimRetentionPolicy"].update(whenScaled="Delete"),
)


@breaks("the_audit_outlives_its_pod", "the purge's goes with its pod")
def _(objects):
    volume = pod(objects, "CronJob/cases-purge").volume("audit")
    del volume["persistentVolumeClaim"]
    volume["emptyDir"] = {"sizeLimit": "1Gi"}


simple("cases_have_their_tables", "nobody makes them", lambda o: drop(o, "Job", "cases-upgrade"))
simple(
    "workers_of_training_find_each_other",
    "a worker too few",
    lambda o: find(o, "TrainJob", "training")["spec"]["trainer"].update(numNodes=3),
)
simple(
    "workers_of_training_find_each_other",
    "another name",
    lambda o: find(o, "TrainJob", "training")["metadata"].update(name="training-2"),
)
simple("gateways_reach_what_they_need_and_no_more", "no way to Redis", lambda o: without_port(o, "gateway", "egress", 6379))
simple(
    "gateways_reach_what_they_need_and_no_more",
    "a way to everywhere",
    lambda o: rules(o, "gateway", "egress").append({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
)
simple(
    "everything_is_denied_first",
    "anybody may be called",
    lambda o: find(o, "NetworkPolicy", "default-deny")["spec"].update(policyTypes=["Ingress"]),
)


@breaks("policies_select_something", "nobody's label")
def _(objects):
    labels = {"app.kubernetes.io/part-of": "dermserve"}
    spec = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gate"}}, "policyTypes": ["Ingress", "Egress"]}
    metadata = {"name": "other", "namespace": "dermserve", "labels": labels}
    objects.append({"kind": "NetworkPolicy", "metadata": metadata, "spec": spec})


simple("whoever_asks_gets_in", "gateways do not get in", lambda o: without_port(o, "serving", "ingress", 8500))
simple("whoever_asks_gets_in", "everybody gets in", lambda o: rules(o, "gateway", "ingress").append({"from": []}))
simple(
    "model_servers_call_nobody_but_their_store",
    "a way out",
    lambda o: rules(o, "serving", "egress").append({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 80}]}),
)
simple("jobs_are_fenced_in", "training is open", lambda o: drop(o, "NetworkPolicy", "training"))
simple(
    "jobs_do_not_change_with_the_settings",
    "all settings",
    lambda o: pod(o, "Job/cases-upgrade").main["envFrom"].append(pod_of(o, "gateway").main["envFrom"][0]),
)
