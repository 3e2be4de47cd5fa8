"""Alembic's entry: runs the migrations on the connection that gateway/cases/database.py hands over."""

from alembic import context

from gateway.cases.tables import Base

# SQLite cannot change a column in place: "batch" lets later migrations do so by a copy.
context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
