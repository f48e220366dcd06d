"""Distances of numbers, counted in representable numbers."""

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from wsl import types

UNORDERED = int(np.iinfo(np.uint64).max)  # of a NaN and a number


def ulps(x: types.ArrayLike, y: types.ArrayLike) -> np.ndarray:
  r"""Counts the representable numbers between two arrays, entry by entry.

  Let :math:`k(x)` be the rank of x among the numbers of its dtype in order,
  with :math:`k(0) = k(-0) = 0`. The result is

  .. math:: |k(x) - k(y)|,

  the number of steps of ``nextafter`` from x to y: exact for every dtype,
  across zero and its two signs, among subnormals, and to infinity, which
  follows the largest finite number. It is the difference of integers, and 0 or
  1 of bools.

  Args:
    x: any shape; floats of 4 to 64 bits, complex numbers, integers or bools.
    y: the shape and dtype of ``x``.

  Returns:
    uint64, the shape of ``x``. Of complex entries it is the larger count of the
    real and imaginary parts. Two NaNs, of any payload, are at distance 0; a NaN
    and a number at 2^64 - 1.

  Raises:
    ValueError: if shapes or dtypes differ, or a dtype has no order.

  Example:
    >>> one = np.float32(1.0)
    >>> int(ulps(one, np.nextafter(one, np.float32(2)))), int(ulps(0.0, -0.0))
    (1, 0)
    >>> ulps(jnp.asarray([1, 2], 'bfloat16'), jnp.asarray([2, -2], 'bfloat16'))
    array([  128, 32768], dtype=uint64)
  """
  x, y = np.asarray(x), np.asarray(y)
  if x.shape != y.shape or x.dtype != y.dtype:
    raise ValueError(
      f'ulps: {x.dtype}{list(x.shape)} and {y.dtype}{list(y.shape)}: give '
      'arrays of one dtype and shape'
    )
  if jnp.issubdtype(x.dtype, np.complexfloating):
    return np.maximum(ulps(x.real, y.real), ulps(x.imag, y.imag))
  i, j = _rank(x), _rank(y)
  found = (np.maximum(i, j) - np.minimum(i, j)).astype(np.uint64)
  if jnp.issubdtype(x.dtype, np.inexact):
    with np.errstate(invalid='ignore'):  # NaN of ml_dtypes
      one, other = np.isnan(x), np.isnan(y)
    found = np.where(one & other, np.uint64(0), found)
    found = np.where(one ^ other, np.uint64(UNORDERED), found)
  return found


def _rank(x: np.ndarray) -> np.ndarray:
  """Returns k(x) + an offset, unsigned and of at least the width of x.

  The bits of a float without its sign, read as an integer, are the rank of its
  magnitude. The offset 2^(n-1), for n bits, is the rank of zero.
  """
  if x.dtype == np.bool_:
    return x.astype(np.uint8)
  if jnp.issubdtype(x.dtype, np.unsignedinteger):
    return x.astype(np.uint64)
  if jnp.issubdtype(x.dtype, np.integer):
    return x.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
  if not jnp.issubdtype(x.dtype, np.floating) or x.dtype.itemsize > 8:
    raise ValueError(f'ulps: {x.dtype} has no order of bits: give numbers')
  unsigned: Any = np.dtype(f'uint{8 * x.dtype.itemsize}').type
  bits = x.view(unsigned)
  width = ml_dtypes.finfo(x.dtype).bits
  sign = unsigned(1 << (width - 1))
  if x.dtype == ml_dtypes.float8_e8m0fnu:  # an exponent without a sign
    return bits
  magnitude = bits & (sign - unsigned(1))
  return np.where(bits & sign != 0, sign - magnitude, sign + magnitude)
