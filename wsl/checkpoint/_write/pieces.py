"""Leaves as contiguous pieces, in the order in which they are written."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import tree


class Piece(NamedTuple):
  """Contiguous entries of a leaf.

  Attributes:
    name: the leaf's name.
    values: ``[n]``; not changed while it is written, which ends before the
      piece after the next one is asked for.
    last: whether the leaf ends with them.
  """

  name: str
  values: np.ndarray
  last: bool


def of(name: str, leaf: Any) -> Iterator[Piece]:
  """Reads or computes a leaf, and yields its pieces.

  Raises:
    ValueError: if it has another shape or dtype than it declares.
  """
  value = host(leaf)
  if value.shape != leaf.shape or value.dtype != leaf.dtype:
    raise ValueError(
      f"save: leaf '{name}' promised {leaf.dtype}{list(leaf.shape)} and is "
      f'{value.dtype}{list(value.shape)}'
    )
  yield Piece(name, value.reshape(-1), True)


def host(leaf: Any) -> np.ndarray:
  """Reads a leaf; all processes take part if it spans them."""
  value = leaf if isinstance(leaf, np.ndarray) else tree.read(leaf)
  if isinstance(value, jax.Array) and not value.is_fully_addressable:
    from jax.experimental import multihost_utils

    value = multihost_utils.process_allgather(value, tiled=True)
  return np.asarray(value, order='C')
