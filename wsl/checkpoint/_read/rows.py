"""The rows of a leaf that a device holds, read from a range of bytes.

In C order the entries of some rows, the first axis, follow each other. A device
that holds columns needs all rows; devices of the same rows share one read.
"""

from collections.abc import Callable
import functools
import math
from typing import Any

import numpy as np

from wsl.checkpoint._read import file_bytes


def reader(
  read_into: Callable[[int, np.ndarray], None],
  shape: tuple[int, ...],
  dtype: np.dtype,
) -> Callable[[tuple[slice, ...]], Any]:
  """Returns a function that reads the entries of an index.

  Args:
    read_into: fills an array with the entries from a flat index on.
    shape: the shape of the leaf, of at least one axis.
    dtype: its dtype.
  """
  row = math.prod(shape[1:])

  @functools.cache
  def rows(first: int, last: int) -> np.ndarray:
    size = (last - first) * row
    values = file_bytes.aligned(size * dtype.itemsize).view(dtype)
    read_into(first * row, values)
    return values.reshape(last - first, *shape[1:])

  def region(index: tuple[slice, ...]) -> np.ndarray:
    first, last, _ = index[0].indices(shape[0])
    return rows(first, last)[:, *index[1:]]

  return region
