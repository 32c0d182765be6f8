"""What commands share: options that mean the same everywhere, and what is opened as the settings say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from monitor import config as configuration
from streams.formats import FORMATS

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from classifiers.api import Classifier

LOG_FORMATS: Final = click.Choice(["auto", *FORMATS])

db = click.option("--db", "url", metavar="URL", help="Database [sqlite:///valuedrift.db].")
tier = click.option("--tier", type=click.Choice(["fast", "accurate", "cascade"]), help="What judges [fast].")
log_format = click.option("--format", "log_format", type=LOG_FORMATS, help="[auto]")
deployment = click.option("--deployment", metavar="NAME", help="Name for transcripts that carry none.")
log_level = click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
json_object = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
json_lines = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
json_last_line = click.option("--json", "as_json", is_flag=True, help="One JSON object on the last line of stdout.")


class ListByDefault(click.Group):
    """A group of commands that lists where none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if known else ["list", *args])


def load(context: click.Context, **options: Any) -> configuration.Config:
    """The settings under these options, named section__key; None values are not given. Raises ConfigError."""
    pairs = {(section, key): value for (section, _, key), value in ((k.partition("__"), v) for k, v in options.items())}
    return configuration.load(context.obj, os.environ, pairs)


def load_classifier(config: configuration.Config) -> Classifier:
    """The tier that is set. Raises WeightsError."""
    from classifiers.tiers import load_tier

    c = config.classifier
    return load_tier(c.tier, Path(c.weights) if c.weights else None, c.accurate_share, c.random_share)


def open_database(config: configuration.Config, retry_seconds: float | None = None) -> Engine:
    """The database with this version's schema; `retry_seconds`: how long it is waited for, None: as set.

    Raises
    ------
    ConfigError, StoreError : as monitor.store.database.open_store.
    """
    from monitor.store.database import open_store

    s = config.store
    patience = s.retry_seconds if retry_seconds is None else retry_seconds
    return open_store(s.url, connect_seconds=s.connect_seconds, retry_seconds=patience)
