"""A run's report as one HTML file, without scripts and without anything from elsewhere."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from loadtests.report import show

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 0 0 1.5rem; } caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #ccc; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.holds { color: #0b5d1e; } .broken { color: #a4001d; font-weight: 700; }
svg { width: 100%; height: auto; } svg text { font-size: 13px; fill: #1b1b1b; } .axis { stroke: #8a8a8a; stroke-width: 1; }
.key { display: flex; gap: 1.5rem; flex-wrap: wrap; padding: 0; list-style: none; } .key svg { width: 2.5rem; height: .8rem; }
pre { white-space: pre-wrap; background: #f3f3f3; padding: .75rem; }
"""

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 900, 220, 60, 12, 28

Lines = Sequence[tuple[str, str, str]]
"""Key in an interval, colour and dashes: lines are told apart without colour, too."""

_RATES: Final[Lines] = (
    ("offered", "#1b1b1b", "2 4"),
    ("accepted", "#0b5d1e", ""),
    ("rejected", "#4a4a9c", "10 3"),
    ("refused", "#8a5a00", "6 6"),
    ("bad", "#a4001d", "1 2"),
)
_TIMES: Final[Lines] = (("accepted_p95_ms", "#0b5d1e", ""),)


def render(report: Mapping[str, Any]) -> str:
    """The page."""
    run = report["run"]
    verdict = '<span class="holds">holds</span>' if report["holds"] else '<span class="broken">does not hold</span>'
    about = [("host", run["host"]), ("course", f"{run['shape']}, {run['loop']} loop"), ("began", run["began_utc"])]
    about += [("duration", f"{run['duration_s']:g} s"), ("peak", f"{run['peak']:g} {run['unit']}")]
    about += [("load generators", run["workers"]), ("mix of visits", ", ".join(f"{k} {v}" for k, v in run["mix"].items()))]
    if not run["complete"]:
        about.append(("note", "stopped before its end"))
    sustained = report["sustained_requests_per_s"]
    about.append(("requests a second that went well, before the first interval that did not", show(sustained)))
    parts = [
        f"<h1>Load test: what is promised {verdict}</h1>",
        _table("The run", ("", ""), about),
        _table(
            "What must hold",
            ("threshold", "reached", ""),
            [(check["threshold"], show(check["value"]), _mark(check["holds"])) for check in report["thresholds"]],
        ),
        _chart("Requests a second, by when they were due", report["timeline"], _RATES),
        _chart("95 of 100 accepted single pictures were answered within, ms", report["timeline"], _TIMES),
        _table(
            "Times in ms, from when a request was due (a slow upload: from its last byte)",
            ("step", "outcome", "requests", "p50", "p95", "p99"),
            [
                (row["step"], row["outcome"], row["requests"], *(show(row[f"p{percent}_ms"]) for percent in (50, 95, 99)))
                for row in report["times"]
            ],
        ),
        _table("Answers", ("step", "outcome", "what", "pictures"), [tuple(row.values()) for row in report["answers"]]),
        _server(report),
        _samples(report["samples"]),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Load test of {escape(run['host'])}</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main>"
        "</body></html>\n"
    )


def _mark(holds: bool) -> str:
    return "holds" if holds else "BROKEN"


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        text = escape(str(value))
        is_number = text.replace(",", "").replace(".", "").replace("-", "").isdigit() or text == "-"
        kind = ' class="number"' if is_number else ' class="broken"' if text == "BROKEN" else ""
        return f"<td{kind}>{text}</td>"

    head = f"<tr>{''.join(f'<th scope=col>{escape(name)}</th>' for name in heads)}</tr>" if any(heads) else ""
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption>{head}{body}</table>"


def _chart(title: str, timeline: Sequence[Mapping[str, float | None]], drawn: Lines) -> str:
    most = max((interval[key] or 0.0 for interval in timeline for key, _, _ in drawn), default=0.0) or 1.0
    last = max(timeline[-1]["second"] or 0.0, 1.0)

    def point(interval: Mapping[str, float | None], key: str) -> str:
        x = _LEFT + (interval["second"] or 0.0) / last * (_WIDTH - _LEFT - 10)
        y = _TOP + (1 - (interval[key] or 0.0) / most) * (_HEIGHT - _TOP - _BOTTOM)
        return f"{x:.1f},{y:.1f}"

    curves = "".join(
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}" points="'
        f'{" ".join(point(interval, key) for interval in timeline if interval[key] is not None)}"/>'
        for key, colour, dashes in drawn
    )
    bottom = _HEIGHT - _BOTTOM
    axes = (
        f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - 10}"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 10}" text-anchor="end">{show(most)}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">0 s</text>'
        f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 8}" text-anchor="end">{last:g} s</text>'
    )
    keys = "".join(
        f'<li><svg viewBox="0 0 40 12" aria-hidden="true"><line x1="0" x2="40" y1="6" y2="6" stroke="{colour}" '
        f'stroke-width="3" stroke-dasharray="{dashes}"/></svg> {escape(key.replace("_", " "))}</li>'
        for key, colour, dashes in drawn
    )
    return (
        f'<h2>{escape(title)}</h2><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{axes}{curves}</svg><ul class="key">{keys}</ul>'
    )


def _server(report: Mapping[str, Any]) -> str:
    if report["server_problem"]:
        return f'<h2>Prometheus</h2><p class="broken">{escape(report["server_problem"])}</p>'
    if report["server"] is None:
        return ""
    rows = [
        (name, labels, show(value))
        for name, by_labels in report["server"].items()
        for labels, value in (by_labels or {"no samples": None}).items()
    ]
    return _table("What Prometheus saw meanwhile, everybody's requests included", ("figure", "of", "value"), rows)


def _samples(samples: Sequence[str]) -> str:
    if not samples:
        return ""
    return f"<h2>The first answers that were not right</h2><pre>{escape(chr(10).join(samples))}</pre>"
