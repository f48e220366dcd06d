"""Polar factors from matrix products alone, for accelerators and float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _numerics

# A step multiplies the smallest singular values by 3/2 of its scale. The
# scale that is best for condition numbers, sqrt(3), maps the largest singular
# value to almost 0, which loses the digits of its vectors: at 1.6 it is mapped
# to 0.35.
_LARGEST_SCALE = 1.6
# Matrices whose singular values are all above one of these need fewer steps.
_LEVELS = (0.01, 0.1)


def orthonormalise(
  x: types.Array, smallest: float
) -> tuple[types.Array, types.Array]:
  r"""Returns W of the polar decomposition :math:`x = W H`, and a bound of |x|.

  Newton-Schulz steps with scales,

  .. math:: x \leftarrow \tfrac{a}{2} x (3 - a^2 x^\top x),

  leave the singular vectors and map each singular value s to
  :math:`p(s) = a s (3 - a^2 s^2) / 2`, at last to 1. The errors of float32 at
  a step are relative to the largest singular value, which no step makes small:
  the result is the polar factor of a matrix near x, as that of an SVD is.

  Args:
    x: ``[..., m, n]``, m >= n.
    smallest: the ratio of singular values to the largest down to which they
      are mapped to 1; smaller ones end between 0 and 1.

  Returns:
    W ``[..., m, n]``, and for each matrix a bound of its largest singular
    value, at most n^(1/16) times that value.

  Reference:
    Chen and Chow, "A stable scaling of Newton-Schulz for improving the sign
    function computation of a Hermitian matrix", 2014.
  """
  size = jnp.max(jnp.abs(x), (-2, -1), keepdims=True)
  x = _numerics.safe_divide(x, size)
  gram = _numerics.matmul(jnp.matrix_transpose(x), x)
  bound = _largest_eigenvalue(gram)
  x = _numerics.safe_divide(x, jnp.sqrt(bound))
  gram = _numerics.safe_divide(gram, bound)
  # The bound may exceed the largest singular value, so that the smallest are
  # smaller in its units.
  lows, scales = _schedule(smallest * x.shape[-1] ** (-1 / 16), x.dtype)
  start = jnp.asarray(0)
  for level in _LEVELS:
    step = max(k for k, low in enumerate(lows) if k == 0 or low <= level)
    start = jnp.where(exceeds(gram, level**2), step, start)
  a = jnp.asarray(scales, x.dtype)

  def take_step(state: tuple[types.Array, ...]) -> tuple[types.Array, ...]:
    k, x, gram = state
    x = _numerics.matmul(
      x, 1.5 * a[k] * identity(gram) - 0.5 * a[k] ** 3 * gram
    )
    return k + 1, x, _numerics.matmul(jnp.matrix_transpose(x), x)

  state: tuple[types.Array, ...] = (start, x, gram)
  more = lambda state: state[0] < len(scales)
  _, x, _ = jax.lax.while_loop(more, take_step, state)
  return x, size[..., 0, 0] * jnp.sqrt(bound[..., 0, 0])


def exceeds(x: types.Array, low: types.ArrayLike) -> types.Array:
  """Returns True if all symmetric ``[..., n, n]`` have eigenvalues above low.

  A Cholesky factorisation of the shifted matrix exists, which is a tenth of the
  work of its eigenvalues. With ``low`` far above rounding error, True is sure.
  """
  low = jnp.broadcast_to(jnp.asarray(low, x.dtype), x.shape[:-2])
  shifted = jnp.matrix_transpose(x - low[..., None, None] * identity(x))
  factor = jnp.linalg.cholesky(shifted, symmetrize_input=False)
  return jnp.all(jnp.isfinite(factor))


def identity(x: types.Array) -> types.Array:
  """Returns identity matrices of the shape of ``[..., n, n]``."""
  return jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)


def _largest_eigenvalue(gram: types.Array) -> types.Array:
  r"""Bounds the largest eigenvalue of PSD ``[..., n, n]``: ``[..., 1, 1]``.

  :math:`\lambda^4 \le |G^4|_F`, at most :math:`n^{1/8}` too large.
  """
  norm = lambda y: jnp.sqrt(jnp.sum(jnp.square(y), (-2, -1), keepdims=True))
  power, bound = gram, jnp.ones_like(gram[..., :1, :1])
  for exponent in (1.0, 0.5, 0.25):
    if exponent < 1:
      power = _numerics.matmul(power, power)
    size = norm(power)
    power, bound = _numerics.safe_divide(power, size), bound * size**exponent
  # The factor covers the rounding errors of the products.
  return bound * (1 + 1e-4)


@functools.cache
def _schedule(low: float, dtype: np.dtype) -> tuple[list[float], list[float]]:
  r"""Returns the lower ends of the spectrum at each step, and the scales.

  The scale :math:`a^2 = 3 / (1 + l + l^2)` makes p(l) = p(1), the largest
  possible smallest value over [l, 1].
  """
  lows, scales = [], []
  while 1 - low > float(jnp.finfo(dtype).eps):
    a = min((3 / (1 + low + low**2)) ** 0.5, _LARGEST_SCALE)
    lows.append(low)
    scales.append(a)
    low = min(a * s * (3 - a**2 * s**2) / 2 for s in (low, 1.0))
  return [*lows, low], [*scales, 1.0]
