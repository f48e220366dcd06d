"""Which leaves are matrices, and the two factorisations that methods need."""

from collections.abc import Callable
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
  kernel: Callable[..., types.Array],
  deltas: types.Deltas,
  matrices: types.Leaves | None,
  **hyper: Any,
) -> types.Delta:
  """Merges matrices by a kernel ``[T, m, n] -> [m, n]``, the rest by the mean.

  Args:
    kernel: a module-level function of float32 or wider stacks.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    matrices: which leaves are matrices; those of two axes if None. A leaf of
      more axes is seen as ``[product of all but the last, last]``.
    **hyper: hyperparameters of the kernel.

  Returns:
    The merged task vector.

  Raises:
    ValueError: if a chosen leaf has fewer than two axes.
  """
  _stack.count(deltas)
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), deltas
  )
  chosen = tree.select(one, matrices or (lambda _, shape: len(shape) == 2))

  def merge(name: str, x: types.Array, is_matrix: bool) -> types.Array:
    if not is_matrix:
      return _linear.mean(x)
    if x.ndim < 3:
      raise ValueError(
        f"leaf '{name}' of shape {x.shape[1:]} is chosen as a matrix and has "
        'fewer than two axes: narrow `matrices`'
      )
    return tree.apply_kernel(_as_matrix, x, method=tree.Static(kernel), **hyper)

  return tree.map_named(merge, deltas, chosen)


def _as_matrix(
  x: types.Array, *, method: Callable[..., types.Array], **hyper: Any
) -> types.Array:
  wide = tree.wide(x).reshape(len(x), -1, x.shape[-1])
  return method(wide, **hyper).reshape(x.shape[1:]).astype(x.dtype)


def svd(x: types.Array) -> Svd:
  """Decomposes ``[..., m, n]``, singular values in descending order."""
  return Svd(*jnp.linalg.svd(x, full_matrices=False))


def significant(
  s: types.Array, shape: tuple[int, ...], largest: types.Array
) -> types.Array:
  """Marks by 1 the singular values of ``[m, n]`` that exceed rounding."""
  tolerance = max(shape[-2:]) * jnp.finfo(s.dtype).eps
  return (s > tolerance * largest).astype(s.dtype)


@jax.custom_jvp
def polar(x: types.Array) -> types.Array:
  r"""Returns the nearest matrix of orthonormal columns: the polar factor.

  .. math:: x = P D Q^\top \mapsto P Q^\top

  over the singular values that are not zero, so that it is unique. It has a
  derivative where x has full rank, also where singular values coincide: those
  of orthonormal columns all do.
  """
  return _polar(x)[0]


@polar.defjvp
def _polar_slope(
  primals: tuple[types.Array], tangents: tuple[types.Array]
) -> tuple[types.Array, types.Array]:
  r"""Differentiates :math:`x = W H`, with W orthonormal and H symmetric.

  In the basis of P and Q, W turns by the skew part of the tangent over the sums
  of singular values, and leaves the span of P, or of Q, by the rest over D.
  """
  (x,), (dx,) = primals, tangents
  w, p, d, q = _polar(x)
  inverse = lambda y: _stack.divide(jnp.ones_like(y), y)
  inner = p.T @ dx @ q
  turn = (inner - inner.T) * inverse(d[:, None] + d[None])
  outside = (dx @ q - p @ inner) * inverse(d)[None]
  across = inverse(d)[:, None] * (p.T @ dx - inner @ q.T)
  return w, p @ turn @ q.T + outside @ q.T + p @ across


def _polar(x: types.Array) -> tuple[types.Array, ...]:
  """Returns W, P, D, Q, with D zero where it is rounding."""
  u, s, vt = svd(x)
  real = significant(s, x.shape, s[0])
  u, v = u * real[None], vt.T * real[None]
  return u @ v.T, u, s * real, v
