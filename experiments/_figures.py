"""Figures of a run, as PNG."""

import pathlib
from typing import Any


def sweep(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws."""


def tasks(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws."""
