"""The version, in its only place: pyproject.toml reads it here, CITATION.cff and CHANGELOG.md are tested against it."""

__all__ = ["__version__"]

__version__ = "0.2.0"
