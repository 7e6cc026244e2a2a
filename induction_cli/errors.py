"""What a person did wrong, said in one line. Apart from the schema, so that --help need not read it."""

from __future__ import annotations


class ConfigError(ValueError):
    """A setting that cannot be used; the message begins with its key and says what would do."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
