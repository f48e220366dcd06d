"""Numerical conventions shared by all rooms.

Arithmetic is in float32 or wider; products have full precision (an accelerator
rounds their operands by default).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types


def wide_dtype(*arrays: Any) -> np.dtype:
  """Returns the dtype to compute in: float32, or the widest float given.

  Args:
    *arrays: arrays or dtypes; integers count as float32.

  Example:
    >>> wide_dtype(jnp.ones(2, jnp.bfloat16), np.ones(2, np.uint8)).name
    'float32'
    >>> wide_dtype(np.dtype(np.float64)).name
    'float64'
  """
  dtypes = [getattr(x, 'dtype', x) for x in arrays]
  dtypes = [jnp.result_type(x) if np.isscalar(x) else x for x in dtypes]
  inexact = [d for d in dtypes if jnp.issubdtype(d, jnp.inexact)]
  return functools.reduce(np.promote_types, inexact, np.dtype(np.float32))


def wide(x: types.Array) -> types.Array:
  """Returns ``x`` in float32, or in its own dtype if that is wider.

  Example:
    >>> wide(jnp.ones(2, jnp.bfloat16)).dtype.name
    'float32'
  """
  return x if x.dtype.itemsize >= 4 else x.astype(np.float32)


def widen(*arrays: types.ArrayLike) -> list[types.Array]:
  """Casts arrays to one dtype: the widest of float32 and their own floats.

  Args:
    *arrays: arrays of any shapes; integers count as float32.

  Returns:
    The arrays, all of one dtype.

  Raises:
    ValueError: if an array is complex.

  Example:
    >>> half, byte = jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.uint8)
    >>> [str(x.dtype) for x in widen(half, byte)]
    ['float32', 'float32']
  """
  found = [jnp.asarray(x) for x in arrays]
  for x in found:
    if jnp.iscomplexobj(x):
      raise ValueError(
        f'features of {x.dtype}{list(x.shape)} are complex: give their real '
        'and imaginary parts as separate features'
      )
  dtype = wide_dtype(*found)
  return [x.astype(dtype) for x in found]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def narrow(x: types.Array, dtype: Any) -> types.Array:
  """Casts floats to another dtype, with its rounding in the same program too.

  On a GPU XLA computes ``x.astype(dtype).astype(x.dtype)`` as ``x``. The error
  of a result that is stored in a narrow dtype would seem to be that of the wide
  one, and what is computed from it would not correct its rounding.

  Args:
    x: floats.
    dtype: a dtype of floats.

  Returns:
    ``x.astype(dtype)``.

  Example:
    >>> x = narrow(jnp.float32(1 / 3), jnp.bfloat16)
    >>> x.dtype.name, float(x.astype(jnp.float32))
    ('bfloat16', 0.333984375)
  """
  to, own = jnp.finfo(dtype), jnp.finfo(x.dtype)
  if to.nmant >= own.nmant:
    return x.astype(dtype)
  rounded = jax.lax.reduce_precision(x, own.nexp, to.nmant)
  if to.nexp < own.nexp:
    # Below the smallest normal number all numbers have one distance.
    distance = np.asarray(to.smallest_subnormal, x.dtype)
    small = jnp.abs(x) < np.asarray(to.tiny, x.dtype)
    rounded = jnp.where(small, jnp.round(x / distance) * distance, rounded)
  return rounded.astype(dtype)


@narrow.defjvp
def _narrow_slope(
  dtype: Any, primals: tuple[types.Array], tangents: tuple[types.Array]
) -> tuple[types.Array, types.Array]:
  """Differentiates a cast: a small number has the slope of others."""
  return narrow(*primals, dtype), tangents[0].astype(dtype)


def matmul(x: types.ArrayLike, y: types.ArrayLike) -> types.Array:
  """Multiplies as ``jnp.matmul`` does, at full precision on every device.

  Example:
    >>> float(matmul(jnp.ones(3), jnp.ones(3)))
    3.0
  """
  return jnp.matmul(x, y, precision='highest')


def unit(x: types.Array) -> types.Array:
  """Normalises the last axis; zero vectors stay zero, gradients are finite.

  Example:
    >>> unit(jnp.asarray([[0.0, 2.0], [0.0, 0.0]])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
  """
  square = jnp.sum(jnp.square(x), -1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))


def square(x: types.Array) -> types.Array:
  """Returns the squared magnitudes of real or complex entries, as reals.

  Example:
    >>> square(jnp.asarray([3 + 4j])).tolist()
    [25.0]
  """
  return inner(x, x)


def inner(x: types.Array, y: types.Array) -> types.Array:
  r"""Returns the products of entries, :math:`\operatorname{Re}(\bar x y)`.

  Their sum is the inner product of complex arrays as real vectors of twice the
  length; for real entries it is the plain product.

  Example:
    >>> inner(jnp.asarray([1 + 2j]), jnp.asarray([3 - 1j])).tolist()
    [1.0]
  """
  if not jnp.iscomplexobj(x) and not jnp.iscomplexobj(y):
    return x * y
  return x.real * y.real + x.imag * y.imag


def safe_divide(x: types.Array, y: types.Array) -> types.Array:
  """Divides, with 0 where the denominator is 0; gradients are finite.

  Example:
    >>> safe_divide(jnp.asarray([1.0, 1.0]), jnp.asarray([2.0, 0.0])).tolist()
    [0.5, 0.0]
  """
  if jnp.iscomplexobj(x) and not jnp.iscomplexobj(y):
    return jax.lax.complex(safe_divide(x.real, y), safe_divide(x.imag, y))
  return x / jnp.where(y == 0, jnp.full_like(y, jnp.inf), y)
