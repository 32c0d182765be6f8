"""Grafana: what is stored -> SQL (`sql`, `label_sql`) -> panels -> dashboards, pure; `files` writes them, `push` sends.

Nothing is computed here that a query of the store's tables does not show.
"""
