"""The gateway's next release, as far as a roll-out sees it: this one, with a migration more."""

import shutil
from pathlib import Path

from gateway.cases.tables import REVISION
from tests.processes import ROOT

NEXT_REVISION = "9999"

MIGRATION = f'''"""A column that the release before does not know."""

import sqlalchemy as sa
from alembic import op

revision = "{NEXT_REVISION}"
down_revision = "{REVISION}"


def upgrade() -> None:
    """Add it."""
    with op.batch_alter_table("cases", recreate="always" if op.get_bind().dialect.name == "sqlite" else "never") as cases:
        cases.add_column(sa.Column("rehearsed", sa.Boolean))


def downgrade() -> None:
    """Take it away."""
    with op.batch_alter_table("cases") as cases:
        cases.drop_column("rehearsed")
'''


def next_release(folder: Path, *, reads_it: bool = False) -> Path:
    """A tree from which the next release's programs can be run.

    Args:
        folder: where to.
        reads_it: its gateway uses the new column; it has no cases then while the tables are older.
    """
    unneeded = shutil.ignore_patterns("__pycache__", "models", "embedded")
    for room in ("gateway", "serving", "web"):
        shutil.copytree(ROOT / room, folder / room, ignore=unneeded)
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "openapi.yaml", folder / "docs")
    tables = folder / "gateway" / "cases" / "tables.py"
    text = tables.read_text()
    changes = {f'REVISION: Final = "{REVISION}"\n': f'REVISION: Final = "{NEXT_REVISION}"\n'}
    if reads_it:
        line = "    model_version: Mapped[int] = mapped_column(BigInteger)\n"
        changes[line] = f"{line}    rehearsed: Mapped[bool | None]\n"
    for line, changed in changes.items():
        assert text.count(line) == 1
        text = text.replace(line, changed)
    tables.write_text(text)
    (folder / "gateway" / "migrations" / "versions" / f"{NEXT_REVISION}_rehearsed.py").write_text(MIGRATION)
    return folder
