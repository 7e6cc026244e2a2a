"""How types and shapes are checked in tests (pyproject.toml): as mypy does, a whole number is a float too."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
