"""The tables of the case record. Change them together with a migration; a test compares the two."""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Dialect, Double, ForeignKey, Index, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

REVISION: Final = "0001"
"""Of the newest migration: what these tables are."""


class Moment(TypeDecorator[datetime]):
    """A time in UTC. SQLite knows no time zones and would give it back without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Into the database."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Out of it."""
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


class Base(DeclarativeBase):
    """Root of the tables."""


class FindingRow(Base):
    """One finding; rows are added, never changed."""

    __tablename__ = "findings"
    __table_args__ = (
        CheckConstraint("histology IN ('benign', 'malignant')", name="histology_is_known"),
        Index("findings_of_a_case", "case_id"),
        Index("findings_by_time", "found_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id", ondelete="CASCADE"))
    found_at: Mapped[datetime] = mapped_column(Moment)
    found_by: Mapped[str] = mapped_column(String(300))
    agrees: Mapped[bool]
    histology: Mapped[str | None] = mapped_column(String(16))


class CaseRow(Base):
    """One kept outcome; rows are added and erased, never changed."""

    __tablename__ = "cases"
    __table_args__ = (
        CheckConstraint("label IN ('benign', 'malignant', 'none')", name="label_is_known"),
        CheckConstraint("malignant >= 0 AND malignant <= 1", name="malignant_is_a_probability"),
        Index("cases_by_time", "kept_at", "id"),
        Index("cases_of_a_picture", "picture_sha256"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kept_at: Mapped[datetime] = mapped_column(Moment)
    kept_by: Mapped[str] = mapped_column(String(300))
    picture_sha256: Mapped[str] = mapped_column(String(64))
    label: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(16))
    malignant: Mapped[float] = mapped_column(Double)
    none_score: Mapped[float] = mapped_column(Double)
    model_version: Mapped[int] = mapped_column(BigInteger)
    findings: Mapped[list[FindingRow]] = relationship(
        order_by=FindingRow.id, cascade="all, delete-orphan", passive_deletes=True
    )
