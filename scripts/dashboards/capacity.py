"""For whoever answers for the machines: is there room, what does a picture cost, and what scales."""

from typing import Final

from panels import GATEWAY, Panel, Rows, mean, quantile, rate

SERVING: Final = ":tensorflow:serving:"
BATCHING: Final = f"{SERVING}batching_session:"
OURS: Final = 'pod=~"(gateway|serving)-.+", container!=""'

CAPACITY: Final[Rows] = {
    "Is there room at the gateway": [
        Panel(
            "Pictures in the gateways",
            "Present, waiting and at work. At work stays at threads times processes: no more go in.",
            {"{{state}}": f"sum by (state) ({GATEWAY}pictures)"},
        ),
        Panel(
            "At work by replica",
            "One that stands out gets more than its share.",
            {"{{instance}}": f'sum by (instance) ({GATEWAY}pictures{{state="at_work"}})'},
        ),
        Panel(
            "Admissions",
            "Let in, refused unread (full), refused after they had waited (late).",
            {"{{result}}": rate(f"{GATEWAY}admissions_total", "result")},
            "stack",
            "reqps",
        ),
    ],
    "Is there room at the model server": [
        Panel(
            "Calls",
            "By status; UNAVAILABLE and RESOURCE_EXHAUSTED: its queue is full.",
            {"{{status}}": rate(f"{SERVING}request_count", "status")},
            "stack",
            "reqps",
        ),
        Panel(
            "Wait in the queue",
            "Before a batch begins, in microseconds.",
            {f"{share:.0%}": quantile(share, f"{BATCHING}queuing_latency") for share in (0.5, 0.95)},
            unit="µs",
        ),
        Panel(
            "Run of a batch, and a whole call",
            "Mean, in microseconds.",
            {
                "run": mean(f"{SERVING}runtime_latency", "job"),
                "call": mean(f"{SERVING}request_latency", "job"),
            },
            unit="µs",
        ),
        Panel(
            "Rows of a batch",
            "As they came, as they ran, and padding. Near the largest: it is replicas that are missing, not batching.",
            {
                "came": mean(f"{BATCHING}input_batch_size", "job"),
                "ran": mean(f"{BATCHING}processed_batch_size", "job"),
                "padding": mean(f"{BATCHING}padding_size", "job"),
            },
        ),
        Panel(
            "Batches",
            "Runs a second, by replica.",
            {"{{instance}}": rate(f"{BATCHING}wrapped_run_count", "instance")},
            "stack",
            "ops",
        ),
        Panel(
            "Retries and circuit breakers",
            "Calls to repeat, and processes whose breaker is open.",
            {
                "retry {{result}}": rate(f"{GATEWAY}retries_total", "result"),
                "open: {{channel}}": f'sum by (channel) ({GATEWAY}breakers{{state="open"}})',
            },
        ),
    ],
    "What a picture costs": [
        Panel(
            "Time of a stage",
            "Mean; predict is the wait for the model server.",
            {"{{stage}}": mean(f"{GATEWAY}stage_seconds", "stage")},
            "stack",
            "s",
        ),
        Panel(
            "Slowest stages",
            "95 of 100.",
            {"{{stage}}": quantile(0.95, f"{GATEWAY}stage_seconds", "stage")},
            unit="s",
        ),
        Panel(
            "Processor time of a stage",
            "Seconds a second, that is cores; over all gateways.",
            {"{{stage}}": rate(f"{GATEWAY}stage_cpu_seconds_total", "stage")},
            "stack",
        ),
    ],
    "What scales": [
        Panel(
            "Pictures a second and replica",
            "Answered. Flat while more come: the bottleneck is elsewhere.",
            {"": f'sum(rate({GATEWAY}outcomes_total[$__rate_interval])) / sum(up{{job="gateway"}})'},
            unit="reqps",
        ),
        Panel(
            "Processor of each pod",
            "Cores, from the kubelet.",
            {"{{pod}}": rate("container_cpu_usage_seconds_total", "pod", OURS)},
        ),
        Panel(
            "Memory of each pod",
            "Working set, from the kubelet.",
            {"{{pod}}": f"sum by (pod) (container_memory_working_set_bytes{{{OURS}}})"},
            unit="bytes",
        ),
    ],
}
