"""What is kept: SQLAlchemy tables (`schema`), opening and migrating a database (`database`), what is written of a
source (`writes`, with the `ledger` that makes each event count once) and of a series (`trajectories`), and the
product's few queries (`reads`). SQLite and PostgreSQL behave the same.
"""
