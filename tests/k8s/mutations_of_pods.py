"""Pods that are broken."""

from tests.k8s.mutations import pod, simple
from tests.k8s.objects import find, pod_of

simple(
    "users_are_not_root",
    "a gateway may be root",
    lambda o: pod_of(o, "gateway").spec["securityContext"].update(runAsNonRoot=False),
)
simple(
    "users_are_not_root", "one container is root", lambda o: pod_of(o, "serving").main["securityContext"].update(runAsUser=0)
)
simple("seccomp_is_on", "no profile", lambda o: pod_of(o, "serving").spec["securityContext"].pop("seccompProfile"))
simple(
    "root_file_systems_are_read_only",
    "an init container writes its image",
    lambda o: pod_of(o, "serving").containers[0]["securityContext"].update(readOnlyRootFilesystem=False),
)
simple(
    "capabilities_are_dropped",
    "one is added",
    lambda o: pod_of(o, "gateway").main["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
)
simple(
    "privileges_do_not_grow",
    "a job may become more",
    lambda o: pod(o, "Job/load-test").main["securityContext"].update(allowPrivilegeEscalation=True),
)
simple("hosts_are_left_alone", "the node's network", lambda o: pod_of(o, "serving").spec.update(hostNetwork=True))
simple(
    "hosts_are_left_alone",
    "a folder of the node",
    lambda o: pod_of(o, "serving").spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
)
simple("tokens_and_links_are_off", "service links", lambda o: pod_of(o, "gateway").spec.pop("enableServiceLinks"))
simple(
    "tokens_and_links_are_off",
    "a token",
    lambda o: pod(o, "TrainingRuntime/dermserve").spec.pop("automountServiceAccountToken"),
)
simple(
    "memory_is_bounded_and_processors_are_not",
    "no limit of memory",
    lambda o: pod_of(o, "serving").main["resources"]["limits"].pop("memory"),
)
simple(
    "memory_is_bounded_and_processors_are_not",
    "a limit of cpu",
    lambda o: pod_of(o, "gateway").main["resources"]["limits"].update(cpu="1"),
)
simple(
    "scratch_space_is_bounded", "an endless emptyDir", lambda o: pod_of(o, "gateway").volume("tmp")["emptyDir"].pop("sizeLimit")
)
simple("images_are_pinned", "latest", lambda o: pod_of(o, "gateway").main.update(image="dermserve/gateway:latest"))
simple("images_are_pinned", "no tag", lambda o: pod(o, "Job/load-test").main.update(image="dermserve/loadtests"))
simple(
    "probes_ask_what_they_should",
    "readiness by the status page",
    lambda o: pod_of(o, "serving").main["readinessProbe"]["httpGet"].update(path="/v1/models/lesion"),
)
simple("probes_ask_what_they_should", "no liveness", lambda o: pod_of(o, "gateway").main.pop("livenessProbe"))
simple(
    "probes_ask_what_they_should",
    "a port without that name",
    lambda o: pod_of(o, "gateway").main["readinessProbe"]["httpGet"].update(port="web"),
)
simple(
    "ports_are_those_that_are_listened_on",
    "another gRPC port",
    lambda o: pod_of(o, "serving").main["ports"][0].update(containerPort=8600),
)
simple(
    "everything_is_labelled",
    "part of nothing",
    lambda o: pod_of(o, "gateway").owner["metadata"]["labels"].pop("app.kubernetes.io/part-of"),
)
simple(
    "priorities_are_given",
    "what answers waits behind what trains",
    lambda o: pod_of(o, "serving").spec.update(priorityClassName="dermserve-background"),
)
simple(
    "priorities_are_given",
    "training as important",
    lambda o: find(o, "PriorityClass", "dermserve-background").update(value=100000),
)
simple("replicas_are_spread", "one zone", lambda o: pod_of(o, "gateway").spec["topologySpreadConstraints"].pop())
simple("jobs_come_to_an_end", "no deadline", lambda o: find(o, "Job", "cases-upgrade")["spec"].pop("activeDeadlineSeconds"))
simple(
    "jobs_come_to_an_end",
    "beside itself",
    lambda o: find(o, "CronJob", "cases-purge")["spec"].update(concurrencyPolicy="Allow"),
)
