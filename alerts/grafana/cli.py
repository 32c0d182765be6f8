"""`valuedrift grafana`: data source, dashboards and annotations into a Grafana, or into files for its provisioning."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from monitor import options
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from alerts.grafana.panels import Json

MOST_MARKS: Final = 500
"""Annotations of one push: the latest. Each is looked up by itself."""
MOST_DAYS: Final = 36_500


@click.group()
def grafana() -> None:
    """Dashboards for Grafana (docs/grafana.md)."""


@grafana.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def write(folder: Path) -> None:
    """Write the files that a Grafana provisions itself from into FOLDER."""
    from alerts.grafana.files import write as run

    written = run(folder)
    for path in written:
        click.echo(f"{path}: written")
    if not written:
        click.echo(f"{folder}: already as it should be")


@grafana.command()
@click.option("--url", "address", required=True, metavar="URL", help="Of Grafana: https://grafana.example.com")
@click.option("--allow-http", is_flag=True, help="Also to another machine without encryption.")
@click.option("--token-env", required=True, metavar="NAME", help="Environment variable with a service account's token.")
@click.option("--password-env", metavar="NAME", help="Environment variable with the database password of --user.")
@click.option("--renew-password", is_flag=True, help="Send the password again: it was changed.")
@click.option("--user", default="valuedrift_reader", show_default=True, help="Role that Grafana reads as.")
@click.option("--postgres", metavar="HOST[:PORT]", help="The database as Grafana reaches it [as in --db].")
@click.option(
    "--sslmode",
    type=click.Choice(["disable", "require", "verify-ca", "verify-full"]),
    help="Of Grafana's connection to the database [as in --db, else require].",
)
@click.option(
    "--days",
    type=click.IntRange(0, MOST_DAYS),
    default=30,
    show_default=True,
    help="Alerts and new baselines of so many days become annotations.",
)
@options.db
@options.json_object
@click.pass_context
def push(
    context: click.Context,
    address: str,
    allow_http: bool,
    token_env: str,
    password_env: str | None,
    renew_password: bool,
    user: str,
    postgres: str | None,
    sslmode: str | None,
    days: int,
    url: str | None,
    as_json: bool,
) -> None:
    """Make a Grafana have the data source, the dashboards and the annotations; run again, it changes what differs."""
    try:
        from alerts.grafana.push import connect
        from alerts.grafana.push import push as run
    except ModuleNotFoundError as e:
        raise ConfigError(f"grafana push needs {e.name}: pip install 'valuedrift[grafana]'") from e
    from alerts.grafana.marks import stored_marks
    from monitor.store.retry import reading

    config = options.load(context, store__url=url)
    password = None if password_env is None else _secret("--password-env", password_env)
    if renew_password and password is None:
        raise ConfigError("--renew-password needs --password-env")
    client = connect(address, _secret("--token-env", token_env), allow_http=allow_http)
    source = _datasource(config.store.url, postgres, user, sslmode)
    engine = options.open_database(config)
    since = datetime.now(UTC) - timedelta(days=days)
    marks = reading(engine, lambda connection: stored_marks(connection, since))
    if len(marks) > MOST_MARKS:
        click.echo(f"valuedrift: of {len(marks)} annotations the latest {MOST_MARKS} are pushed", err=True)
    done = run(client, source, password, marks[-MOST_MARKS:], renew=renew_password)
    if as_json:
        click.echo(msgspec.json.encode(done))
        return
    for kind in ("created", "changed", "removed"):
        for what in getattr(done, kind):
            click.echo(f"{kind}: {what}")
    click.echo(f"{len(done.unchanged)} unchanged")


def _secret(option: str, name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"{option}: the environment variable {name} is not set")
    return value


def _datasource(store_url: str, postgres: str | None, user: str, sslmode: str | None) -> Json:
    """The database of the settings, as Grafana is to reach it. Raises ConfigError."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    from alerts.grafana.files import datasource

    try:
        url = make_url(store_url)
    except ArgumentError:
        raise ConfigError("store.url is not an address of a database") from None
    if not url.drivername.startswith("postgres") or not url.database:
        raise ConfigError("Grafana reads PostgreSQL: give the database with --db postgresql://USER@HOST/NAME")
    given = url.query.get("sslmode")
    mode = sslmode or (given if given in ("disable", "require", "verify-ca", "verify-full") else "require")
    host = url.host or url.query.get("host")
    if postgres is None and (not isinstance(host, str) or not host):
        raise ConfigError("--db names no host that Grafana could reach; give it with --postgres HOST:PORT")
    bracketed = f"[{host}]" if ":" in str(host) else host
    return datasource(postgres or f"{bracketed}:{url.port or 5432}", url.database, user, str(mode))
