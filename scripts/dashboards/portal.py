"""For whoever answers for the portal: is it up and fast, and what do people get."""

from typing import Final

from panels import GATEWAY, Panel, Rows, quantile, rate

PEOPLE: Final = 'route!~"/health/.+|/metrics"'
ONE_PICTURE: Final = 'route=~"/api/v1/classifications|/api/v1/cases|/check"'
"""As in the rules of the objectives."""

PORTAL: Final[Rows] = {
    "Is it kept": [
        Panel(
            "Answered, of three days",
            "Requests that got no 5xx; the objective is 99.5 % of 30 days. A refusal for want of room is none of them.",
            {"": "1 - dermserve:requests_unanswered:ratio_rate3d"},
            "number",
            "percentunit",
            6,
            good_from=0.995,
        ),
        Panel(
            "In two seconds, of three days",
            "Answered pictures; the objective is 95 % of 30 days.",
            {"": "1 - dermserve:pictures_late:ratio_rate3d"},
            "number",
            "percentunit",
            6,
            good_from=0.95,
        ),
        Panel(
            "Known to be right, of three days",
            "Time in which the golden picture got its recorded answer within ten periods; the objective is 99 % of 30 days.",
            {"": "1 - dermserve:golden_stale:ratio_avg3d"},
            "number",
            "percentunit",
            6,
            good_from=0.99,
        ),
        Panel(
            "Alerts now",
            "What to do about each stands in docs/runbook.md.",
            {"": 'count(ALERTS{service="dermserve", alertstate="firing"}) or vector(0)'},
            "number",
            width=6,
            limit=1,
        ),
    ],
    "Is it up and fast": [
        Panel("Replicas that can be reached", "By job.", {"{{job}}": 'sum by (job) (up{job=~"gateway|serving"})'}),
        Panel(
            "Requests",
            "By route, without probes and metrics.",
            {"{{route}}": rate(f"{GATEWAY}requests_total", "route", PEOPLE)},
            "stack",
            "reqps",
        ),
        Panel(
            "Without an answer",
            "Share of 5xx.",
            {"5 minutes": "dermserve:requests_unanswered:ratio_rate5m", "1 hour": "dermserve:requests_unanswered:ratio_rate1h"},
            unit="percentunit",
            limit=0.005,
        ),
        Panel(
            "Time to answer a picture",
            "Of those that were answered, with their upload.",
            {
                f"{share:.0%}": quantile(share, f"{GATEWAY}accepted_seconds", selector=ONE_PICTURE)
                for share in (0.5, 0.95, 0.99)
            },
            unit="s",
            limit=2,
        ),
        Panel(
            "Time to answer by route",
            "95 of 100, refusals included.",
            {"{{route}}": quantile(0.95, f"{GATEWAY}request_seconds", "route", PEOPLE)},
            unit="s",
        ),
        Panel(
            "Problems",
            "Answers that were problems, by kind (GET /problems/KIND tells what each means).",
            {"{{problem}}": f"{rate(f'{GATEWAY}problems_total', 'problem')} > 0"},
            "stack",
            "reqps",
        ),
    ],
    "What do people get": [
        Panel(
            "Answers of a day",
            "By label.",
            {"{{label}}": f"sum by (label) (increase({GATEWAY}outcomes_total[1d]))"},
            "bars",
        ),
        Panel(
            "Answers",
            "By label; `none` with its reason.",
            {"{{label}} {{reason}}": rate(f"{GATEWAY}outcomes_total", "label, reason")},
            "stack",
            "reqps",
        ),
        Panel(
            "Quality warnings",
            "That came with answers.",
            {"{{warning}}": rate(f"{GATEWAY}quality_warnings_total", "warning")},
            "stack",
            "reqps",
        ),
    ],
}
