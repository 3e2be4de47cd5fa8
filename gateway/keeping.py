"""Keeping a classification in the case record: what is kept is what was answered, and nothing else."""

import uuid

from gateway.audit.record import Event, digest
from gateway.audit.trail import Audit
from gateway.cases.record import CaseStore, KeptCase, now
from gateway.classify import Classification


class CaseKeeper:
    """Puts cases into the record, each with its line in the audit."""

    def __init__(self, store: CaseStore, audit: Audit) -> None:
        self._store = store
        self._audit = audit

    def keep(self, data: bytes, classification: Classification, who: str) -> KeptCase:
        """Keep one.

        Args:
            data: the picture, of which the digest is kept.
            classification: of this picture.
            who: keeps it.

        Raises:
            CasesUnavailable: the database does not answer.
            AuditUnavailable: it could not be recorded, so it was not kept.
        """
        case = KeptCase(
            id=uuid.uuid4().hex,
            kept_at=now(),
            kept_by=who,
            picture_sha256=digest(data),
            label=classification.label,
            reason=classification.reason,
            malignant=classification.malignant,
            none_score=classification.none_score,
            model_version=classification.metadata.version,
        )
        event = Event(
            who=who,
            action="keep_case",
            request_id=classification.id,
            outcome=case.label,
            cases=(case.id,),
            picture=case.picture_sha256,
            model_version=case.model_version,
        )

        def seal() -> None:
            self._audit.write(event)

        self._store.keep(case, seal)
        return case
