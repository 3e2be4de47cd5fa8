"""What a country asks for: the figures of assumptions.json, each of which the reader can replace."""

import json
from dataclasses import dataclass
from pathlib import Path

ASSUMPTIONS = Path(__file__).parent / "assumptions.json"

_ABOVE_NOTHING = 1e-6
MAY_BE = {
    "people": 1.0,
    "growth_per_year": -0.5,
    "years": 0.0,
    "checks_per_person": _ABOVE_NOTHING,
    "pictures_per_check": _ABOVE_NOTHING,
    "days": 1.0,
    "busiest_hour": 1 / 24,
    "burst": 1.0,
    "utilisation": 0.01,
    "zones": 2.0,
    "least": 1.0,
    "kept": 0.0,
    "core_price": 0.0,
    "gpu_price": 0.0,
    "objective_s": _ABOVE_NOTHING,
    "shards": 1,
    "pictures": 1,
}
"""At least, of each argument."""


@dataclass(frozen=True)
class Demand:
    """The reader's figures: the names in assumptions.json."""

    people: float
    growth_per_year: float
    years: float
    checks_per_person: float
    pictures_per_check: float
    days: float
    busiest_hour: float
    burst: float
    utilisation: float
    zones: float
    least: float
    kept: float
    core_price: float
    gpu_price: float
    objective_s: float

    @property
    def pictures_a_year(self) -> float:
        """In the year that is planned for."""
        people = self.people * (1 + self.growth_per_year) ** self.years
        return people * self.checks_per_person * self.pictures_per_check

    @property
    def peak(self) -> float:
        """Pictures a second in the busiest hour."""
        return self.pictures_a_year / self.days * self.busiest_hour / 3600


def assumed() -> Demand:
    """As the file has it."""
    return Demand(**{name: entry["value"] for name, entry in json.loads(ASSUMPTIONS.read_text()).items()})


def assumptions_table() -> list[str]:
    """Every figure with where it comes from."""
    entries = json.loads(ASSUMPTIONS.read_text()).items()
    rows = (
        f"| `--{name.replace('_', '-')}` | {of['value']:.10g} | {of['what']} | {of['basis']}: {of['why']} |"
        for name, of in entries
    )
    return ["| argument | value | what | basis |", "|---|---|---|---|", *rows]
