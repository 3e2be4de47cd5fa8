"""What people and programs look up in kept cases and add to them, each time with its record; knows no HTTP."""

from dataclasses import dataclass

from gateway.audit.record import Action, Event
from gateway.audit.trail import Audit
from gateway.cases.record import CaseStore, Cursor, Finding, KeptCase, Selection


@dataclass(frozen=True)
class Asker:
    """Who wants something of the book.

    Attributes:
        name: the identity's.
        request_id: of the request, as in its log line.
    """

    name: str
    request_id: str


@dataclass(frozen=True)
class CasePage:
    """Some cases, the newest first.

    Attributes:
        cases: those on this page.
        following: where the next page begins; None on the last one.
    """

    cases: list[KeptCase]
    following: Cursor | None


class CaseBook:
    """The case record to read and to add findings to, with no way around the audit record."""

    def __init__(self, store: CaseStore, audit: Audit) -> None:
        self._store = store
        self._audit = audit

    def browse(self, asker: Asker, selection: Selection, limit: int, after: Cursor | None = None) -> CasePage:
        """A page of cases."""
        found = self._store.page(selection, limit + 1, after)
        shown = found[:limit]
        self._record(asker, "read_cases", *(case.id for case in shown))
        following = Cursor(shown[-1].kept_at, shown[-1].id) if len(found) > limit else None
        return CasePage(shown, following)

    def read(self, asker: Asker, id: str) -> KeptCase:  # noqa: A002
        """One case with its findings.

        Raises:
            CaseNotFound: there is none.
        """
        case = self._store.find(id)
        self._record(asker, "read_cases", case.id)
        return case

    def add_finding(self, asker: Asker, id: str, finding: Finding) -> None:  # noqa: A002
        """Add to what was found before.

        Raises:
            CaseNotFound: there is no such case.
        """
        self._store.add_finding(id, finding, lambda: self._record(asker, "write_finding", id, reason=finding.histology))

    def _record(self, asker: Asker, action: Action, *ids: str, reason: str | None = None) -> None:
        self._audit.write(Event(asker.name, action, asker.request_id, "done", reason=reason, cases=ids))
