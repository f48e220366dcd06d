"""Operands of an equation: their traits, shapes and constant values."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from wsl.align._find import known_constants
from wsl.align._find.generic import traits as traits_lib

_LARGEST = 1 << 20  # entries of a constant that is evaluated
_ABSORBS = 1e6  # larger terms round others away in float32


class Operand(NamedTuple):
  """The traits of an operand, its shape, and its value if it is constant."""

  traits: traits_lib.Traits
  shape: tuple[int, ...]
  constant: known_constants.Constant | None = None


def _constant(x: Operand) -> np.ndarray | None:
  """Returns a small constant as an array, else ``None``."""
  small = np.prod(x.shape, dtype=float) <= _LARGEST
  return x.constant.array() if x.constant is not None and small else None


def bounded(x: Operand) -> bool:
  """Returns whether adding the operand does not round other terms away."""
  if x.constant is None:
    return x.traits.bounded
  array = _constant(x)
  return array is not None and bool((np.abs(array) <= _ABSORBS).all())


def nonzero(x: Operand) -> bool:
  """Returns whether no entry is zero."""
  if x.traits.nonzero:
    return True
  array = _constant(x)
  return array is not None and bool((np.isfinite(array) & (array != 0)).all())


def uniform(x: Operand, *values: float) -> bool:
  """Returns whether all entries are the same one of some constants."""
  array = _constant(x)
  return array is not None and any(bool((array == v).all()) for v in values)


def distinct(x: Operand) -> traits_lib.Dims:
  """Returns the axes along which no two entries of a constant are equal."""
  array = _constant(x)
  if array is None or not array.size or array.ndim != len(x.shape):
    return traits_lib.NONE
  # Along an axis that is broadcast, entries are repeated.
  whole = [i for i, n in enumerate(x.shape) if array.shape[i] == n]
  steps = lambda i: np.diff(np.sort(array, i), axis=i)
  return frozenset(i for i in whole if (steps(i) != 0).all())


def broadcast(x: Operand, shape: tuple[int, ...]) -> Operand:
  """Returns an operand of an elementwise operation in the result's shape."""
  if not x.shape and shape:
    flat = frozenset(range(len(shape)))
    keep: Callable[[traits_lib.Dims], traits_lib.Dims] = lambda dims: (
      traits_lib.NONE
    )
  else:
    wider = {i for i, n in enumerate(x.shape) if n != shape[i]}
    flat = frozenset(i for i, n in enumerate(x.shape) if n == 1)
    array = _constant(x)
    if array is not None and array.size:
      same = lambda i: bool((array == array.take([0], axis=i)).all())
      flat |= {i for i in range(len(shape)) if same(i)}
    keep = lambda dims: dims - wider
  traits = traits_lib.map_axes(x.traits, keep, keep, lambda dims: dims | flat)
  return x._replace(traits=traits._replace(nonzero=nonzero(x)), shape=shape)
