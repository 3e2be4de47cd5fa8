"""What a rehearsal has shown: a table of its phases, and every fault."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from scripts.prove_rollout import Phase
from scripts.rehearsal.ledger import Kept, compare, read_record, unknown
from scripts.rehearsal.traffic import Asked

STEADY_S = 4.0
OUTCOMES = ("answered", "refused", "lost", "wrong")


@dataclass
class Rehearsal:
    """What happens and what came of it.

    Attributes:
        phases: what was done and when.
        may_refuse: phases in which the case record is away; in all others nothing may be refused.
        asked: every request.
        facts: what the document says beside the table.
        faults: what is not as it has to be.
    """

    phases: list[Phase] = field(default_factory=list)
    may_refuse: set[str] = field(default_factory=set)
    asked: list[Asked] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def during(self, name: str, act: Callable[[], object] = lambda: time.sleep(STEADY_S), *, may_refuse: bool = False) -> Phase:
        """Do it and note when."""
        print(f"{name} ...", end="", flush=True)
        start = time.monotonic()
        act()
        self.phases.append(Phase(name, start, time.monotonic()))
        print(f" {self.phases[-1].end - start:.1f} s", flush=True)
        if may_refuse:
            self.may_refuse.add(name)
        return self.phases[-1]

    def check_record(self, name: str, settings: dict[str, str], ledger: dict[str, Kept], moment: Phase | None = None) -> int:
        """Compare the record with what was answered until now, or until the moment. Returns how many cases it holds."""
        start = time.monotonic()
        found = read_record(settings)
        shown = moment or Phase(name, start, time.monotonic())
        self.faults += [f"{name}: {fault}" for fault in compare(found, ledger, shown.start, shown.end, erased_by=start)]
        return len(found)

    def check_end(self, name: str, settings: dict[str, str], ledger: dict[str, Kept], known: set[str]) -> None:
        """When nothing is under way any more, the record holds what was answered and nothing else.

        Args:
            name: of the record.
            settings: where it is.
            ledger: what was answered.
            known: cases that may be there whatever the ledger says.
        """
        found = read_record(settings)
        self.faults += [f"{name}: {fault}" for fault in unknown(found, ledger) if fault.split()[-1] not in known]

    def table(self) -> str:
        """A row for each phase, and the facts; what the table shows to be wrong is added to the faults."""
        lines = [f"| {' | '.join(('phase', 'seconds', 'requests', *OUTCOMES))} |", f"|---{'|---' * (len(OUTCOMES) + 2)}|"]
        for phase in self.phases:
            within = Counter(asked.outcome for asked in self.asked if phase.start <= asked.sent < phase.end)
            cells = (phase.name, f"{phase.end - phase.start:.1f}", within.total(), *(within[outcome] for outcome in OUTCOMES))
            lines.append(f"| {' | '.join(map(str, cells))} |")
        total = Counter(asked.outcome for asked in self.asked)
        lines.append(f"| all | | {total.total()} | {' | '.join(str(total[outcome]) for outcome in OUTCOMES)} |")
        self.faults += [f"{asked.what} {asked.outcome}: {asked.detail[:300]}" for asked in self.asked if self._is_fault(asked)]
        kinds = Counter(asked.what for asked in self.asked if asked.outcome == "answered")
        answered = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        return "\n".join([*lines, "", f"- Answered: {answered}.", *(f"- {fact}" for fact in self.facts), ""])

    def _is_fault(self, asked: Asked) -> bool:
        if asked.outcome != "refused":
            return asked.outcome != "answered"
        allowed = [phase for phase in self.phases if phase.name in self.may_refuse]
        # What was sent just before a phase may be refused in it, and its answer is no sooner there than the phase is over.
        return not any(phase.start - 1.0 <= asked.sent < phase.end for phase in allowed)
