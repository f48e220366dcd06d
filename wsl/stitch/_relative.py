"""Relative representations: features as similarities to anchors.

Each kind of similarity is a function of inner products, distances or spans, and
inherits the invariances of that quantity. If two encoders differ by such a map,
``g(x) = T f(x)`` for features and anchors both, their relative representations
are equal, and a decoder trained on one encoder can read the other.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch import _anchors


def relative(
  features: types.ArrayLike,
  anchors: _anchors.Anchors | types.ArrayLike,
  *,
  kind: str = 'cosine',
  center: bool | types.Array = False,
  normalize: bool = False,
  like: _anchors.Anchors | None = None,
) -> types.Array:
  r"""Represents features by their similarities to anchors.

  .. math:: r(z) = (s(z, a_1), \dots, s(z, a_k)), \quad
    s(z, a) = \frac{z^\top a}{\|z\| \|a\|}

  Encoders that differ by a rotation and a scale have equal r: a decoder that is
  trained on one encoder's r decodes the other's (zero-shot stitching).

  ==============  ========================================  ==================
  ``kind``        s(z, a)                                   invariant to
  ==============  ========================================  ==================
  ``cosine``      the cosine of the angle, -1 .. 1          rotation, scale
  ``angle``       the angle over pi, 0 .. 1                 rotation, scale
  ``inner``       the inner product over sqrt(d)            rotation
  ``euclidean``   the Euclidean distance                    rotation, shift
  ``manhattan``   the sum of absolute differences           shift
  ``basis``       coefficients c of least norm among those  any invertible
                  that minimise ||z - sum_i c_i a_i||       map, if the anchors
                                                            span the space,
                                                            else rotation and
                                                            scale
  ==============  ========================================  ==================

  With ``center``, every kind is invariant to shifts too. With ``normalize``,
  every kind but ``basis`` is invariant to scale too (``basis`` already is).

  Args:
    features: ``[..., d]``, floats.
    anchors: anchors of the same encoder; or their features ``[k, d]`` alone,
      if ``like`` is not given.
    kind: the similarity, a row of the table.
    center: whether to subtract the mean of the anchors from features and
      anchors first; or the vector ``[d]`` to subtract, such as a mean over more
      examples.
    normalize: whether to normalise the k entries to mean 0 and variance 1 (a
      layer normalisation without parameters or epsilon).
    like: the anchors that the decoder was trained with, compared by id.

  Returns:
    ``[..., k]``, float32 or wider. A zero vector has cosine 0 with every
    anchor.

  Raises:
    ValueError: if the widths differ, the kind is unknown, or the anchors are
      not the same examples in the same order as ``like``.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stitch import anchors
    >>> two = anchors(jnp.eye(2), ids=['right', 'up'])
    >>> relative(jnp.asarray([0.0, 3.0]), two).tolist()
    [0.0, 1.0]

  Reference:
    Moschella et al., "Relative representations enable zero-shot latent space
    communication", 2022, arXiv:2209.15430.
  """
  if kind not in KINDS:
    hint = tree.nearest(kind, list(KINDS))
    raise ValueError(
      f"relative: no kind '{kind}'{hint}: there are {', '.join(KINDS)}"
    )
  if not isinstance(anchors, _anchors.Anchors):
    if like is not None:
      raise ValueError(
        'relative: anchors without ids cannot be compared with like: give '
        'anchors(features, ids)'
      )
    anchors = _anchors.anchors(anchors, range(len(jnp.asarray(anchors))))
  if like is not None:
    _anchors.check_anchors(like, anchors)
  x, a = jnp.asarray(features), anchors.features
  if not x.ndim or x.shape[-1] != a.shape[1]:
    raise ValueError(
      f'relative: features are {list(x.shape)} and anchors {list(a.shape)}: '
      'both must come from one encoder'
    )
  x, a = tree.widen(x, a)
  rows = x.reshape(-1, x.shape[-1])
  if center is not False:
    shift = jnp.mean(a, 0) if center is True else jnp.asarray(center, x.dtype)
    if shift.shape != a.shape[1:]:
      raise ValueError(
        f'relative: center has shape {shift.shape}, expected True, False or '
        f'{a.shape[1:]}'
      )
    rows, a = rows - shift[None], a - shift[None]
  similarities = KINDS[kind](rows, a)
  if normalize:
    # A centred row of norm sqrt(k) has variance 1.
    mean = jnp.mean(similarities, -1, keepdims=True)
    similarities = tree.unit(similarities - mean) * len(a) ** 0.5
  return similarities.reshape(*x.shape[:-1], len(a))


def _inner(x: types.Array, a: types.Array) -> types.Array:
  """Returns inner products over sqrt(d); (Q z)^T (Q a) = z^T a."""
  return tree.matmul(x, a.T) / a.shape[1] ** 0.5


def _cosine(x: types.Array, a: types.Array) -> types.Array:
  """Returns cosines: inner products of unit vectors, 0 for a zero vector."""
  return tree.matmul(tree.unit(x), tree.unit(a).T)


def _angle(x: types.Array, a: types.Array) -> types.Array:
  """Returns angles over pi, 0 .. 1."""
  cosine = _cosine(x, a)
  # arccos has infinite slope at -1 and 1. A select of a safe argument there
  # makes the gradient 0 instead of NaN (both branches of `where` are
  # differentiated).
  inside = jnp.abs(cosine) < 1
  angle = jnp.arccos(jnp.where(inside, cosine, 0.0)) / jnp.pi
  return jnp.where(inside, angle, jnp.where(cosine > 0, 0.0, 1.0))


def _euclidean(x: types.Array, a: types.Array) -> types.Array:
  """Returns Euclidean distances, with gradient 0 at distance 0."""
  # Differences, not |x|^2 - 2 x.a + |a|^2, which cancels for close points; one
  # anchor at a time, so that the memory is N d and not N k d.
  square = jax.lax.map(lambda row: jnp.sum(jnp.square(x - row[None]), -1), a).T
  positive = square > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def _manhattan(x: types.Array, a: types.Array) -> types.Array:
  """Returns sums of absolute differences, one anchor at a time."""
  return jax.lax.map(lambda row: jnp.sum(jnp.abs(x - row[None]), -1), a).T


def _basis(x: types.Array, a: types.Array) -> types.Array:
  """Returns the coefficients c = z A^+ of least norm with c A closest to z."""
  # For z' = z T and A' = A T with T invertible and A of full column rank,
  # (A T)^+ = T^-1 A^+, so c' = z T T^-1 A^+ = c.
  return tree.matmul(x, jnp.linalg.pinv(a))


KINDS: Mapping[str, Callable[[types.Array, types.Array], types.Array]] = (
  MappingProxyType(
    {
      'cosine': _cosine,
      'angle': _angle,
      'inner': _inner,
      'euclidean': _euclidean,
      'manhattan': _manhattan,
      'basis': _basis,
    }
  )
)
