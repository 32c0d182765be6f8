"""Alembic's entry: runs on the connection `monitor.store.database` hands over, or on VALUEDRIFT_STORE_URL."""

import os

from alembic import context

from monitor.store.database import open_engine
from monitor.store.schema import METADATA, include_name

connection = context.config.attributes.get("connection")


def run(on: object) -> None:
    context.configure(
        connection=on,  # type: ignore[arg-type]
        target_metadata=METADATA,
        render_as_batch=True,
        include_name=include_name,
    )
    with context.begin_transaction():
        context.run_migrations()


if connection is not None:
    run(connection)
else:
    with open_engine(os.environ.get("VALUEDRIFT_STORE_URL", "sqlite:///valuedrift.db")).begin() as own:
        run(own)
