"""What was answered, compared with what a case record holds."""

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.cases import database
from gateway.cases.tables import Base
from gateway.settings import PREFIX, Settings

Row = dict[str, Any]


@dataclass
class Kept:
    """A case as it was answered.

    Attributes:
        document: `case` of the answer.
        sent, answered: when.
        findings: answers to findings, each with the time of it.
        erasure: when it was asked for, and when it was answered; infinite where it was not.
    """

    document: Row
    sent: float
    answered: float
    findings: list[tuple[float, Row]] = field(default_factory=list)
    erasure: tuple[float, float] = (math.inf, math.inf)


def read_record(settings: dict[str, str]) -> dict[str, Row]:
    """Every case that a database holds, as the API tells it; without the gateway's store, which refuses other revisions."""
    engine = database.connect(Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in settings.items()}))
    cases, findings = Base.metadata.tables["cases"], Base.metadata.tables["findings"]
    try:
        with Session(engine.execution_options(isolation_level="SERIALIZABLE")) as session:
            found = {row["id"]: _told(row) | {"findings": []} for row in session.execute(select(cases)).mappings()}
            for row in session.execute(select(findings).order_by(findings.c.id)).mappings():
                finding = _told(row)
                del finding["id"]
                found[finding.pop("case_id")]["findings"].append(finding)
        return found
    finally:
        engine.dispose()


def compare(found: dict[str, Row], ledger: dict[str, Kept], start: float, end: float, erased_by: float) -> list[str]:
    """What a record lacks, has too much or has otherwise, which shows the moment somewhere between start and end.

    Args:
        found: what the record holds.
        ledger: what was answered.
        start: what was answered before has to be there.
        end: what was sent later cannot be there.
        erased_by: what was erased before must not be there.
    """
    faults = []
    # What was sent while the record was read may be in it and not yet answered.
    known = dict(ledger)
    for id_, kept in known.items():
        asked, erased = kept.erasure
        case = found.get(id_)
        if case is None:
            if kept.answered < start and asked > max(end, erased_by):
                faults.append(f"case {id_} is not there")
        elif erased < erased_by:
            faults.append(f"case {id_} was erased and is there")
        elif kept.sent > end:
            faults.append(f"case {id_} was kept later and is there")
        else:
            faults += _differences(case, kept, start)
    return faults


def unknown(found: dict[str, Row], ledger: dict[str, Kept]) -> list[str]:
    """Cases that nobody was told of: their answer got lost. To be asked when nothing is under way any more."""
    return [f"nobody was told of case {id_}" for id_ in found.keys() - ledger.keys()]


def _differences(case: Row, kept: Kept, start: float) -> list[str]:
    holds, told = ({**facts, "findings": None} for facts in (case, kept.document))
    faults = [f"a case holds {holds}, told was {told}"] if holds != told else []
    missing = [finding for answered, finding in kept.findings if answered < start and finding not in case["findings"]]
    return faults + [f"case {case['id']} lacks the finding {finding}" for finding in missing]


def _told(row: Any) -> Row:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
