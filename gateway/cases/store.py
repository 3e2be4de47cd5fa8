"""Cases in a database: SQLite on one machine, PostgreSQL for several."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final, cast

from sqlalchemy import Engine, delete, func, select, tuple_
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, selectinload

from gateway.cases import database
from gateway.cases.record import MAX_PAGE, Count, Cursor, Finding, Histology, KeptCase, Sealed, Selection
from gateway.cases.tables import REVISION, CaseRow, FindingRow
from gateway.errors import CaseNotFound, CasesUnavailable

if TYPE_CHECKING:
    from gateway.decision import Label, Reason


_ID: Final = re.compile(r"[0-9a-f]{32}")


class DatabaseStore:
    """The store of `gateway.cases.record`, for threads and processes."""

    def __init__(self, engine: Engine) -> None:
        """One for each process, made after the fork. The database need not answer yet."""
        self._engine = engine
        self._is_checked = threading.Event()

    def keep(self, case: KeptCase, seal: Sealed) -> None:
        """Add a case."""
        with self._transaction() as session:
            session.add(
                CaseRow(
                    id=case.id,
                    kept_at=case.kept_at,
                    kept_by=case.kept_by,
                    picture_sha256=case.picture_sha256,
                    label=case.label,
                    reason=case.reason,
                    malignant=case.malignant,
                    none_score=case.none_score,
                    model_version=case.model_version,
                )
            )
            session.flush()
            seal()

    def find(self, id: str) -> KeptCase:  # noqa: A002
        """One case."""
        with self._transaction() as session:
            return _to_case(_row(session, id))

    def page(self, selection: Selection, limit: int, after: Cursor | None = None) -> list[KeptCase]:
        """The newest first."""
        query = select(CaseRow).options(selectinload(CaseRow.findings))
        for column, wanted in (
            (CaseRow.label, selection.label),
            (CaseRow.model_version, selection.model_version),
            (CaseRow.picture_sha256, selection.picture_sha256),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        if after:
            # By place and not by number: what is kept or erased meanwhile neither repeats a case nor skips one.
            query = query.where(tuple_(CaseRow.kept_at, CaseRow.id) < (after.kept_at, after.id))
        query = query.order_by(CaseRow.kept_at.desc(), CaseRow.id.desc()).limit(limit)
        with self._transaction() as session:
            return [_to_case(row) for row in session.scalars(query)]

    def add_finding(self, id: str, finding: Finding, seal: Sealed) -> None:  # noqa: A002
        """Add to what was found before."""
        with self._transaction() as session:
            _row(session, id)
            session.add(
                FindingRow(
                    case_id=id,
                    found_at=finding.found_at,
                    found_by=finding.found_by,
                    agrees=finding.agrees,
                    histology=finding.histology,
                )
            )
            session.flush()
            seal()

    def erase(self, id: str, seal: Sealed) -> None:  # noqa: A002
        """Remove a case; its findings go with it."""
        with self._transaction() as session:
            session.delete(_row(session, id))
            session.flush()
            seal()

    def purge(self, before: datetime, seal: Callable[[tuple[str, ...]], None]) -> int:
        """Remove what was kept before a moment, some at a time: each time `seal` gets their ids, as in `Sealed`.

        Returns:
            how many were removed.
        """
        removed = 0
        while True:
            with self._transaction() as session:
                query = select(CaseRow.id).where(CaseRow.kept_at < before).order_by(CaseRow.kept_at).limit(MAX_PAGE)
                ids = tuple(session.scalars(query))
                if not ids:
                    return removed
                session.execute(delete(CaseRow).where(CaseRow.id.in_(ids)))
                seal(ids)
            removed += len(ids)

    def erase_again(self, erased: Iterable[str], seal: Callable[[tuple[str, ...]], None]) -> int:
        """Remove those of these cases that are there, some at a time, as `purge` does: a restored backup has brought them back.

        Returns:
            how many were removed.
        """
        removed = 0
        for some in _in_parts(sorted(erased)):
            with self._transaction() as session:
                ids = tuple(session.scalars(select(CaseRow.id).where(CaseRow.id.in_(some)).order_by(CaseRow.id)))
                if not ids:
                    continue
                session.execute(delete(CaseRow).where(CaseRow.id.in_(ids)))
                seal(ids)
            removed += len(ids)
        return removed

    def missing(self, kept: Iterable[str]) -> list[str]:
        """Those of these ids that are no case."""
        absent: list[str] = []
        for some in _in_parts(sorted(kept)):
            with self._transaction() as session:
                found = set(session.scalars(select(CaseRow.id).where(CaseRow.id.in_(some))))
            absent += [id_ for id_ in some if id_ not in found]
        return absent

    def count(self, since: datetime) -> list[Count]:
        """Of each case the latest finding that has histology counts: a correction is a further finding."""
        latest = (
            select(func.max(FindingRow.id))
            .where(FindingRow.histology.is_not(None))
            .group_by(FindingRow.case_id)
            .scalar_subquery()
        )
        query = (
            select(CaseRow.model_version, CaseRow.label, FindingRow.histology, func.count())
            .join(FindingRow, FindingRow.case_id == CaseRow.id)
            .where(FindingRow.id.in_(latest), FindingRow.found_at >= since)
            .group_by(CaseRow.model_version, CaseRow.label, FindingRow.histology)
        )
        with self._transaction() as session:
            return [
                Count(version, cast("Label", label), cast("Histology", histology), cases)
                for version, label, histology, cases in session.execute(query)
            ]

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        try:
            self._check_revision()
            with Session(self._engine) as session, session.begin():
                yield session
        except (DBAPIError, PoolTimeoutError) as error:
            # The type alone: a driver's text may hold what was to be written.
            raise CasesUnavailable(f"the database did not do it: {type(error).__name__}") from None

    def _check_revision(self) -> None:
        """Once in a process's life: a newer revision has to be readable for the program before it (docs/cases.md)."""
        if self._is_checked.is_set():
            return
        current = database.current_revision(self._engine)
        if current != REVISION:
            raise CasesUnavailable(f"the database has revision {current}, this program {REVISION}")
        self._is_checked.set()


def _in_parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), MAX_PAGE):
        yield ids[start : start + MAX_PAGE]


def _row(session: Session, id: str) -> CaseRow:  # noqa: A002
    # PostgreSQL would refuse some texts with an error of its own.
    row = session.get(CaseRow, id) if _ID.fullmatch(id) else None
    if row is None:
        raise CaseNotFound("there is no case with this id")
    return row


def _to_case(row: CaseRow) -> KeptCase:
    findings = (
        Finding(finding.found_at, finding.found_by, finding.agrees, cast("Histology | None", finding.histology))
        for finding in row.findings
    )
    return KeptCase(
        id=row.id,
        kept_at=row.kept_at,
        kept_by=row.kept_by,
        picture_sha256=row.picture_sha256,
        label=cast("Label", row.label),
        reason=cast("Reason | None", row.reason),
        malignant=row.malignant,
        none_score=row.none_score,
        model_version=row.model_version,
        findings=tuple(findings),
    )
