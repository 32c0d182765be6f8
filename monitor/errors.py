"""Every error the product raises on purpose: what is wrong, where, and what to do."""


class ValueDriftError(Exception):
    """Base class; `exit_code` is what the command line returns (docs/cli.md)."""

    exit_code = 2


class ConfigError(ValueDriftError):
    """A setting, option or argument that cannot be used."""


class InputError(ValueDriftError):
    """A source that cannot be read at all (single bad events become dead letters instead)."""

    exit_code = 3


class StoreError(ValueDriftError):
    """A database that cannot be opened, is of another version, or is in use by another process."""

    exit_code = 3


class StoreUnreachable(StoreError):
    """A database that does not answer, or has no room, for longer than one is prepared to wait."""

    exit_code = 2


class BrokerError(ValueDriftError):
    """Kafka brokers that cannot be reached, refuse what was asked, or lack a topic."""

    exit_code = 3


class WeightsError(ValueDriftError):
    """Classifier weights that are missing, damaged or of another layout."""

    exit_code = 3
