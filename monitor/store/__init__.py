"""What is kept: SQLAlchemy tables (`schema`), opening and migrating a database (`database`), and the product's few
reads and writes (`writes`, `reads`). SQLite and PostgreSQL behave the same.
"""
