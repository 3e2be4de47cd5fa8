"""The page of a soak, and the verdict that the command ends with."""

import json
import math
import platform
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np

from scripts.callers import processor
from scripts.documents import replace_block
from scripts.soak.report import Soak, is_refused, rows, violations
from scripts.soak.traffic import OUTCOMES
from tests import processes

_SHOWN = 30


def report(soak: Soak, docs: Path | None) -> int:
    """Print and write. 1 when a promise is broken."""
    broken = violations(soak)
    machine = f"At commit {processes.head_commit()}, on {processor()}, Python {platform.python_version()}"
    head = (
        f"{machine}: {soak.minutes:.0f} minutes at {soak.rate:.1f} requests a second, 70 % of the {soak.capacity:.1f} "
        "that callers without a pause got before."
    )
    text = to_markdown(soak, head)
    print(f"\n{text}")
    if broken:
        print("\n".join(["broken promises:", *broken[:_SHOWN], f"{len(broken)} in all"]), file=sys.stderr)
    if docs:
        verdict = "Every promise held." if not broken else f"**{len(broken)} promises were broken**, the first: {broken[0]}"
        replace_block(docs / "soak.md", "soak", f"{verdict}\n\n{text}\nThe same figures: [soak.json](figures/soak.json).\n")
        document = to_document(soak, machine) | {"broken": broken}
        (docs / "figures" / "soak.json").write_text(json.dumps(document, indent=1) + "\n")
    return int(bool(broken))


def to_markdown(soak: Soak, head: str) -> str:
    """What stands in the page."""
    columns = ("what", "broken for, s", "offered", *OUTCOMES, "p50 ms", "p99 ms", "back after, s")
    lines = [head, "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows(soak):
        counts = (str(row.outcomes.get(outcome, 0)) for outcome in OUTCOMES)
        times = ("-" if np.isnan(value) else f"{value:.0f}" for value in (row.p50_ms, row.p99_ms))
        seconds = f"{row.seconds:.1f}" if row.name == "all" or row.back_s is not None else ""
        back = "" if row.back_s is None else f"{row.back_s:.1f}"
        lines.append(f"| {' | '.join((row.name, seconds, str(sum(row.outcomes.values())), *counts, *times, back))} |")
    lines += ["", "| private memory | after the warm-up, MB | at the end, MB | growth |", "|---|---|---|---|"]
    lines += [f"| {one.name} | {one.before / 1e6:.1f} | {one.after / 1e6:.1f} | {one.share:+.2%} |" for one in soak.growth]
    refused = Counter(one.detail for one in soak.asked if is_refused(one))
    told = ", ".join(f"{slug} {count}" for slug, count in sorted(refused.items())) or "nothing"
    kinds = ", ".join(f"{what} {count}" for what, count in sorted(Counter(one.what for one in soak.asked).items()))
    facts = [f"Asked: {kinds}.", f"Refused or late: {told}.", *soak.facts]
    return "\n".join([*lines, "", *(f"- {fact}" for fact in facts), ""])


def to_document(soak: Soak, machine: str) -> dict[str, object]:
    """What is kept beside the page."""
    return {
        "machine": machine,
        "minutes": soak.minutes,
        "capacity": soak.capacity,
        "rate": soak.rate,
        "rows": [{name: _finite(value) for name, value in asdict(row).items()} for row in rows(soak)],
        "growth": [asdict(one) | {"share": one.share} for one in soak.growth],
        "facts": soak.facts,
    }


def _finite(value: object) -> object:
    """JSON has no other numbers."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
