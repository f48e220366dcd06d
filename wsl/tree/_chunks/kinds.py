"""What is known of the inputs of a program before they are read."""

from collections.abc import Iterator, Sequence
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl.tree import _on_demand

# Larger arrays in memory are read at the positions of a chunk, smaller ones are
# rather thresholds or weights of models: both are tried.
_LARGE = 1 << 12


class Kind(NamedTuple):
  """An input, hashable.

  Attributes:
    shape: its shape.
    dtype: its dtype; the type of a number of Python.
    weak: whether its dtype yields to that of others.
    stored: whether it is read.
    array: whether it is an array in memory.
  """

  shape: tuple[int, ...]
  dtype: Any
  weak: bool = False
  stored: bool = False
  array: bool = False

  def abstract(self, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Returns the traced type, at another shape."""
    if isinstance(self.dtype, type):
      aval = jax.typeof(self.dtype(0))
      return jax.ShapeDtypeStruct((), aval.dtype, weak_type=aval.weak_type)
    return jax.ShapeDtypeStruct(shape, self.dtype, weak_type=self.weak)


def of(x: Any) -> Kind:
  """Describes an input."""
  if not hasattr(x, 'dtype'):
    return Kind((), type(x))
  shape, weak = tuple(x.shape), bool(getattr(x, 'weak_type', False))
  stored = isinstance(x, _on_demand.Stored)
  array = isinstance(x, (np.ndarray, jax.Array))
  return Kind(shape, x.dtype, weak, stored, array)


def leads(
  kinds: Sequence[Kind], shape: tuple[int, ...]
) -> Iterator[tuple[int | None, ...]]:
  """Yields the choices of inputs to read at the positions of a shape.

  For each input its number of leading axes, or None if it is uniform.
  """
  for large in (_LARGE, 0):
    yield tuple(
      len(k.shape) - len(shape)
      if k.shape[len(k.shape) - len(shape) :] == shape
      and (k.stored or (k.array and k.shape and math.prod(k.shape) > large))
      else None
      for k in kinds
    )
