"""Values reduced over whole leaves, computed when they are first read."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Statistic:
  """A small array that is computed from leaves on demand, once.

  Attributes:
    compute: returns the array.
    over: the leaves that it reads.
    passes: how often it reads each of them, about.
    shape: the shape of the array.
    dtype: its dtype.
  """

  compute: Callable[[], Any] = dataclasses.field(repr=False)
  over: tuple[Any, ...] = dataclasses.field(repr=False)
  passes: int
  shape: tuple[int, ...]
  dtype: np.dtype

  ndim = property(lambda self: len(self.shape))
  size = property(lambda self: int(np.prod(self.shape, dtype=np.int64)))

  @functools.cached_property
  def value(self) -> Any:
    """The array, computed on first access."""
    value = self.compute()
    dtype = self.dtype
    if isinstance(value, jax.Array):
      dtype = jax.dtypes.canonicalize_dtype(dtype)
    return value.astype(dtype)
