"""Magnitudes as integers of the same order.

IEEE 754 orders sign, exponent and fraction from the most to the least
significant bit. With the sign bit cleared, the bits of a float read as an
integer are therefore monotone in its magnitude: |a| < |b| if and only if
bits(|a|) < bits(|b|), denormal numbers and infinity included. Comparisons and
thresholds are integer arithmetic here, exact and free of rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types


def integer(dtype: np.dtype) -> np.dtype:
  """Returns the integer dtype of a float's width."""
  return np.dtype(f'int{8 * dtype.itemsize}')


def of(x: types.Array, dtype: np.dtype) -> types.Array:
  """Returns the bits of magnitudes as integers, which keep their order."""
  if jnp.iscomplexobj(x):
    x = jnp.abs(x)
  floats = np.dtype(f'float{8 * dtype.itemsize}')
  wide = floats if dtype.itemsize > x.dtype.itemsize else x.dtype
  return jax.lax.bitcast_convert_type(jnp.abs(x.astype(wide)), dtype)


def on_host(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Returns ``of(x, dtype)`` by numpy, without a compilation."""
  x = np.abs(x) if np.iscomplexobj(x) else x
  if dtype.itemsize > x.dtype.itemsize:
    x = x.astype(f'float{8 * dtype.itemsize}')
  return x.view(dtype) & np.iinfo(dtype).max
