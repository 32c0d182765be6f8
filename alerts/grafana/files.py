"""The same as files, from which a Grafana provisions itself when it starts (docker-compose.yml mounts them)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from alerts.grafana.dashboards import FOLDER_TITLE, FOLDER_UID, dashboards
from alerts.grafana.panels import DATASOURCE_TYPE, DATASOURCE_UID, Json
from monitor.errors import ConfigError

DATASOURCE_NAME: Final = "valuedrift"
READER: Final = "valuedrift_reader"
MOUNTED_DASHBOARDS: Final = "/var/lib/grafana/dashboards"
_PASSWORD: Final = "${READER_PASSWORD}"  # Grafana's own expansion: the variable of its environment
_HEAD: Final = "# Written by `valuedrift grafana write`: change alerts/grafana/ instead, and write again.\n"


def datasource(address: str, database: str, user: str, sslmode: str) -> Json:
    """The PostgreSQL data source, without its password.

    Parameters
    ----------
    address : host:port as Grafana reaches it.
    """
    return {
        "uid": DATASOURCE_UID,
        "name": DATASOURCE_NAME,
        "type": DATASOURCE_TYPE,
        "access": "proxy",
        "url": address,
        "user": user,
        "jsonData": {
            "database": database,
            "sslmode": sslmode,
            "postgresVersion": 1500,
            "timescaledb": False,
            "maxOpenConns": 10,
            "maxIdleConns": 2,
            "connMaxLifetime": 14400,
        },
    }


def files() -> dict[str, str]:
    """Contents by path below docker/grafana."""
    source = datasource("postgres:5432", "valuedrift", READER, "disable")
    source |= {"secureJsonData": {"password": _PASSWORD}, "editable": False}
    provider = {
        "name": "valuedrift",
        "type": "file",
        "folder": FOLDER_TITLE,
        "folderUid": FOLDER_UID,
        "allowUiUpdates": False,
        "options": {"path": MOUNTED_DASHBOARDS},
    }
    out = {
        "provisioning/datasources/valuedrift.yaml": _yaml({"apiVersion": 1, "datasources": [source]}),
        "provisioning/dashboards/valuedrift.yaml": _yaml({"apiVersion": 1, "providers": [provider]}),
    }
    return out | {f"dashboards/{d['uid']}.json": _json(d) for d in dashboards()}


def write(folder: Path) -> list[Path]:
    """Write all of them; those that are as they should be are left alone. Raises ConfigError where it cannot."""
    written = []
    for name, text in files().items():
        path = folder / name
        try:
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except (OSError, ValueError) as e:
            raise ConfigError(f"{path}: cannot be written: {e}; give a folder that may be written to") from e
        written.append(path)
    return written


def _json(value: Json) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _yaml(value: Json) -> str:
    # YAML reads JSON, and Grafana's reader of these files reads YAML
    return _HEAD + _json(value)
