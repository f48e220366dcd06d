"""Leaves as contiguous pieces, in the order in which they are written."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import mesh, tree


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


def of(
  leaves: Mapping[str, Any], chunk_bytes: int = tree.CHUNK_BYTES
) -> Iterator[Piece]:
  """Reads or computes leaves in order, and yields their pieces.

  Args:
    leaves: arrays or leaves on demand, by name.
    chunk_bytes: the size of each operand of a chunk, see ``tree.stream``.

  Raises:
    ValueError: if a leaf has another shape or dtype than it declares.
  """
  if all(isinstance(x, np.ndarray) for x in leaves.values()):
    # There is nothing to read ahead or to compute.
    for name, x in leaves.items():
      yield Piece(name, np.asarray(x, order='C').reshape(-1), True)
    return
  done = 0
  stream = tree.stream(leaves, chunk_bytes=chunk_bytes, read=_checked)
  for name, values in stream:
    done += values.size
    last = done == leaves[name].size
    yield Piece(name, values, last)
    done = 0 if last else done


def _checked(name: str, leaf: Any) -> np.ndarray:
  """Reads a whole leaf, and checks it."""
  value = tree.read(leaf)
  check(name, leaf, value)
  local = not isinstance(value, jax.Array) or value.is_fully_addressable
  if not local and not tree.spans_processes(leaf):
    # Only this process reads the leaf: it would wait for the others.
    raise ValueError(
      f"save: leaf '{name}' is sharded over processes, and its fetch has no "
      'attribute sharding that says so: add it'
    )
  return host(value)


def check(name: str, leaf: Any, value: Any) -> None:
  """Checks that a value has the shape and dtype that its leaf declares."""
  if value.shape != leaf.shape or value.dtype != leaf.dtype:
    raise ValueError(
      f"save: leaf '{name}' promised {leaf.dtype}{list(leaf.shape)} and is "
      f'{value.dtype}{list(value.shape)}'
    )


def host(leaf: Any) -> np.ndarray:
  """Reads a leaf; all processes take part if it spans them."""
  return np.asarray(mesh.gather(leaf), order='C')
