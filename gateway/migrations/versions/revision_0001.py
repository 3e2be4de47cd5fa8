"""Cases and their findings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "cases",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("kept_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kept_by", sa.String(300), nullable=False),
        sa.Column("picture_sha256", sa.String(64), nullable=False),
        sa.Column("label", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(16)),
        sa.Column("malignant", sa.Double, nullable=False),
        sa.Column("none_score", sa.Double, nullable=False),
        sa.Column("model_version", sa.BigInteger, nullable=False),
        sa.CheckConstraint("label IN ('benign', 'malignant', 'none')", name="label_is_known"),
        sa.CheckConstraint("malignant >= 0 AND malignant <= 1", name="malignant_is_a_probability"),
    )
    op.create_index("cases_by_time", "cases", ["kept_at", "id"])
    op.create_index("cases_of_a_picture", "cases", ["picture_sha256"])
    op.create_table(
        "findings",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("case_id", sa.String(32), sa.ForeignKey("cases.id", ondelete="CASCADE"), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("found_by", sa.String(300), nullable=False),
        sa.Column("agrees", sa.Boolean, nullable=False),
        sa.Column("histology", sa.String(16)),
        sa.CheckConstraint("histology IN ('benign', 'malignant')", name="histology_is_known"),
    )
    op.create_index("findings_of_a_case", "findings", ["case_id"])
    op.create_index("findings_by_time", "findings", ["found_at"])


def downgrade() -> None:
    """Remove both, with all that is in them."""
    op.drop_table("findings")
    op.drop_table("cases")
