"""Products of two uniform matrices, such as the factors of an adapter.

The entries of a product at consecutive positions are those of a block of its
rows, so that a leaf that is the sum of a base and of a product of small factors
is computed in chunks.
"""

import math
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from wsl.tree._chunks import values

# XLA multiplies matrices of a few rows by other kernels, which add in another
# order. Blocks of so many rows have the bits of the whole product.
_LEAST_ROWS = 64
# A chunk may compute so many times the entries that it needs.
_MOST_WASTE = 4


def product(
  window: values.Window, eqn: core.JaxprEqn, left: Any, right: Any
) -> values.Flat:
  """Returns a product ``[*batch, m, n]`` at the positions ``[*batch, length]``.

  Args:
    window: positions of the leaf, which is ``[m, n]`` or a factorisation of it.
    eqn: a ``dot_general`` whose left operand has one axis of rows.
    left: the left operand, uniform.
    right: the right operand, uniform.

  Raises:
    values.NotFlatError: if it is no such product, or a block of rows has many
      more entries than the window.
  """
  (inner, _), (batch, _) = eqn.params['dimension_numbers']
  shape, sizes = values.shape_of(eqn.outvars[0]), np.shape(left)
  free = [a for a in range(len(sizes)) if a not in (*inner, *batch)]
  lead = len(batch)
  values.require(len(free) == 1 and math.prod(shape[lead:]) == window.size)
  rows, width = shape[lead], math.prod(shape[lead + 1 :])
  count = min(max(-(-window.length // width) + 1, _LEAST_ROWS), rows)
  values.require(count * width <= _MOST_WASTE * (window.length + 2 * width))
  # A start near the end is moved, so that the block has all of its rows.
  at = window.start // np.uint32(width)
  first = jnp.minimum(at, np.uint32(rows - count))
  block = jax.lax.dynamic_slice_in_dim(left, first, count, free[0])
  found = values.bind(eqn, [block, right])
  found = found.reshape(*shape[:lead], count * width)
  # Positions beyond the end of the leaf are not used.
  found = jnp.pad(found, [(0, 0)] * lead + [(0, window.length)])
  offset = window.start - first * np.uint32(width)
  array = jax.lax.dynamic_slice_in_dim(found, offset, window.length, lead)
  return values.Flat(array, lead)
