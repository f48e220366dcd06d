"""Relative representations: features as similarities to anchors."""

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
  r"""Describes features by what they have in common with anchors.

  .. math:: r(z) = (s(z, a_1), \dots, s(z, a_k)), \quad
    s(z, a) = \frac{z^\top a}{\|z\| \|a\|}

  Two encoders that differ by a rotation and a scale agree on r, so that a
  decoder learnt on one encoder's r decodes another's: zero-shot stitching.

  ==============  ========================================  ==================
  ``kind``        s(z, a)                                   unchanged by
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

  A shift changes the others; with ``center`` it changes none, and with
  ``normalize`` a scale changes none but ``basis`` (which has no need of it).

  Args:
    features: ``[..., d]``, floats.
    anchors: of the same encoder; or their features ``[k, d]`` alone, if no
      ``like`` is to be compared.
    kind: the similarity.
    center: whether to subtract the mean of the anchors from features and
      anchors first; or what to subtract, ``[d]``, such as a mean of more
      examples.
    normalize: whether the result is normalised over its k entries: mean 0,
      variance 1 (a layer normalisation without parameters or epsilon).
    like: the anchors that the decoder learnt with, to be compared by id.

  Returns:
    ``[..., k]``, float32 or wider. A zero vector has cosine 0 with all.

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
    middle = jnp.mean(a, 0) if center is True else jnp.asarray(center, x.dtype)
    rows, a = rows - middle[None], a - middle[None]
  found = KINDS[kind](rows, a)
  if normalize:
    middle = jnp.mean(found, -1, keepdims=True)
    found = tree.unit(found - middle) * len(a) ** 0.5
  return found.reshape(*x.shape[:-1], len(a))


def _inner(x: types.Array, a: types.Array) -> types.Array:
  return jnp.matmul(x, a.T, precision='highest') / a.shape[1] ** 0.5


def _cosine(x: types.Array, a: types.Array) -> types.Array:
  return jnp.matmul(tree.unit(x), tree.unit(a).T, precision='highest')


def _angle(x: types.Array, a: types.Array) -> types.Array:
  """The slope of arccos is infinite at its ends; there it is taken as 0."""
  cosine = _cosine(x, a)
  inside = jnp.abs(cosine) < 1
  found = jnp.arccos(jnp.where(inside, cosine, 0.0)) / jnp.pi
  return jnp.where(inside, found, jnp.where(cosine > 0, 0.0, 1.0))


def _euclidean(x: types.Array, a: types.Array) -> types.Array:
  square = jax.lax.map(lambda row: jnp.sum(jnp.square(x - row[None]), -1), a).T
  apart = square > 0
  return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)


def _manhattan(x: types.Array, a: types.Array) -> types.Array:
  return jax.lax.map(lambda row: jnp.sum(jnp.abs(x - row[None]), -1), a).T


def _basis(x: types.Array, a: types.Array) -> types.Array:
  return jnp.matmul(x, jnp.linalg.pinv(a), precision='highest')


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
