"""Alembic migrations; `valuedrift db upgrade` runs them."""
