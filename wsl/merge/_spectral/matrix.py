"""Matrix leaves, singular value decompositions and polar factors."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _linear, _stack


class Svd(NamedTuple):
  """Thin singular value decompositions, ``x = u diag(s) vt``."""

  u: types.Array  # [..., m, r]
  s: types.Array  # [..., r]
  vt: types.Array  # [..., r, n]


def on_matrices(
  function: str,
  kernel: Callable[..., types.Array],
  deltas: types.Deltas,
  matrices: tree.Matrices | None,
  otherwise: str,
  **hyper: Any,
) -> types.Delta:
  """Merges matrices by a kernel ``[T, m, n] -> [m, n]``, others by the mean.

  Args:
    function: the public function, as the user called it.
    kernel: a module-level function of stacks in float32 or wider.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    matrices: which leaves are matrices and in which view, as in ``tree.views``.
    otherwise: leaves of more than two axes without a rule, as in
      ``tree.views``.
    **hyper: hyperparameters of the kernel.

  Returns:
    The merged task vector.

  Raises:
    ValueError: as ``tree.views``, or if a matrix is complex.
  """
  views = _stack.views(function, deltas, matrices, otherwise)

  def merge(name: str, x: types.Array, view: tree.Matrix | None) -> types.Array:
    if view is None or not view.is_matrix:
      return tree.apply_kernel(_linear.mean_leaf, x)
    tree.check_real(function, {name: x}, 'only real matrices are decomposed')
    static = {'method': tree.Static(kernel), 'view': tree.Static(view)}
    return tree.apply_kernel(_in_view, x, **static, **hyper)

  return tree.map_named(merge, deltas, views)


def _in_view(
  x: types.Array,
  *,
  method: Callable[..., types.Array],
  view: tree.Matrix,
  **hyper: Any,
) -> types.Array:
  """Merges each matrix of a view of ``[T, ...]``, in a wide dtype."""
  stacks = view.split(tree.wide(x), models=1)
  if stacks.shape[1] == 1:
    merged = method(stacks[:, 0], **hyper)[None]
  else:
    merged = jax.vmap(functools.partial(method, **hyper), in_axes=1)(stacks)
  return view.join(merged, x.shape[1:]).astype(x.dtype)


def svd(x: types.Array) -> Svd:
  """Decomposes ``[..., m, n]``, singular values in descending order."""
  return Svd(*jnp.linalg.svd(x, full_matrices=False))


def significant(
  s: types.Array, shape: tuple[int, ...], largest: types.Array
) -> types.Array:
  """Returns 1 for singular values of ``[m, n]`` above rounding error, else 0.

  The tolerance is that of ``numpy.linalg.matrix_rank``: max(m, n) * eps times
  the largest singular value.
  """
  tolerance = max(shape[-2:]) * jnp.finfo(s.dtype).eps
  return (s > tolerance * largest).astype(s.dtype)


@jax.custom_jvp
def polar(x: types.Array) -> types.Array:
  r"""Returns the polar factor: the nearest matrix of orthonormal columns.

  .. math:: x = P D Q^\top \mapsto P Q^\top

  over the nonzero singular values, which makes it unique. Its derivative exists
  where x has full rank, also where singular values coincide (as those of
  orthonormal columns do), unlike the derivatives of P and Q; hence the rule
  below.
  """
  return _polar(x)[0]


@polar.defjvp
def _polar_slope(
  primals: tuple[types.Array], tangents: tuple[types.Array]
) -> tuple[types.Array, types.Array]:
  r"""Differentiates :math:`x = W H`, with W orthonormal and H symmetric.

  With :math:`S = P^\top dx\,Q` and :math:`\Omega = P^\top dW\,Q`, the product
  rule :math:`dx = dW\,H + W\,dH` reads :math:`S = \Omega D + Q^\top dH\,Q`.
  dH is symmetric and Omega skew, so :math:`S - S^\top = \Omega D + D \Omega`
  and :math:`\Omega_{ij} = (S - S^\top)_{ij} / (d_i + d_j)`. The parts of dx
  outside the column span of P, or the row span of Q, are divided by D.
  """
  (x,), (dx,) = primals, tangents
  w, p, d, q = _polar(x)
  inverse = lambda y: tree.safe_divide(jnp.ones_like(y), y)
  right, left = tree.matmul(dx, q), tree.matmul(p.T, dx)
  inner = tree.matmul(left, q)
  turn = (inner - inner.T) * inverse(d[:, None] + d[None])
  outside = (right - tree.matmul(p, inner)) * inverse(d)[None]
  across = inverse(d)[:, None] * (left - tree.matmul(inner, q.T))
  inside = tree.matmul(p, tree.matmul(turn, q.T) + across)
  return w, inside + tree.matmul(outside, q.T)


def _polar(x: types.Array) -> tuple[types.Array, ...]:
  """Returns W, P, D, Q, with D set to zero below rounding error."""
  u, s, vt = svd(x)
  real = significant(s, x.shape, s[0])
  u, v = u * real[None], vt.T * real[None]
  return tree.matmul(u, v.T), u, s * real, v
