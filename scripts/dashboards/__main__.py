"""`make dashboards`: writes Grafana's dashboards, one for each reader, into the folder that is named."""

import sys
from pathlib import Path
from typing import Final

from capacity import CAPACITY
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from model import MODEL
from panels import Rows, draw
from portal import PORTAL

DASHBOARDS: Final[dict[str, tuple[str, Rows]]] = {
    "portal": ("Dermserve: the portal's service", PORTAL),
    "model": ("Dermserve: the model", MODEL),
    "capacity": ("Dermserve: capacity", CAPACITY),
}


def render(name: str) -> str:
    """The file of a dashboard, the same every time."""
    title, rows = DASHBOARDS[name]
    board = dashboard.Dashboard(title).uid(f"dermserve-{name}").tags(["dermserve"]).refresh("1m").time("now-24h", "now")
    board = board.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    number = 0
    for row, panels in rows.items():
        number += 1
        board = board.with_row(dashboard.Row(row).id(number))
        for panel in panels:
            number += 1
            board = board.with_panel(draw(panel, number))
    return f"{JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(board.build())}\n"


def main() -> None:
    """Write every dashboard."""
    for name in DASHBOARDS:
        (Path(sys.argv[1]) / f"{name}.json").write_text(render(name))


if __name__ == "__main__":
    main()
