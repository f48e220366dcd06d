"""Translation of one latent space into another, by examples of both."""

import dataclasses

import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch import _adapter, _anchors
from wsl.stitch._fit import features

KINDS = ('affine', 'orthogonal', 'nearest_orthogonal')
SCALES = ('none', 'common', 'each')


def translate(
  source: types.ArrayLike | _anchors.Anchors,
  target: types.ArrayLike | _anchors.Anchors,
  *,
  kind: str = 'orthogonal',
  scale: str = 'none',
  ridge: float | None = None,
) -> _adapter.Adapter:
  r"""Finds the map from one encoder's features to another's, from few examples.

  .. math:: y = \Big( \frac{x - \mu_x}{\sigma_x} W \Big) \sigma_y + \mu_y

  ======================  ==================================================
  ``kind``                W
  ======================  ==================================================
  ``affine``              of least squares, with ``ridge``
  ``orthogonal``          the rotation that brings the examples closest
                          (Procrustes)
  ``nearest_orthogonal``  the rotation nearest to that of least squares
  ======================  ==================================================

  A narrower space counts as padded with zeros: a rotation from 3 to 5
  dimensions is 3 orthogonal rows. Each is ``fit`` between the two scalings.

  Args:
    source: features x of n examples, ``[n, d]``, or anchors.
    target: features y of the same examples, ``[n, m]``, or anchors; two sets
      of anchors are compared by id.
    kind: which W.
    scale: what sigma is: ``'none'``, 1; ``'common'``, one number, the root mean
      square distance from the mean; ``'each'``, the standard deviation of every
      feature. Least squares without ridge come out the same for all.
    ridge: of least squares, as for ``fit``; it has no part in ``orthogonal``.

  Returns:
    An adapter with a weight and a bias, for ``apply_adapter`` and ``invert``.

  Raises:
    ValueError: if the examples are not as many or not the same, or a name is
      unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> turned = 2 * x[:, ::-1] + 5
    >>> found = translate(x, turned, scale='common')
    >>> [[round(v) for v in row] for row in found.weight.tolist()]
    [[0, 2], [2, 0]]

  Reference:
    Maiorca et al., "Latent Space Translation via Semantic Alignment", 2023,
    arXiv:2311.00664.

  Differs from the official code, which fits ``affine`` by 300 steps of Adam, in
  its closed form; and in an inverse.
  """
  _check_names(kind, scale)
  if isinstance(source, _anchors.Anchors):
    if isinstance(target, _anchors.Anchors):
      _anchors.check_anchors(target, source)
    source = source.features
  if isinstance(target, _anchors.Anchors):
    target = target.features
  x, y = tree.widen(source, target)
  if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
    raise ValueError(
      f'translate: features are {list(x.shape)} and {list(y.shape)}, expected '
      '[n, d] and [n, m] of the same n >= 1 examples'
    )
  mean_x, mean_y = jnp.mean(x, 0), jnp.mean(y, 0)
  x, y = x - mean_x[None], y - mean_y[None]
  sigma_x, sigma_y = _spread(x, scale), _spread(y, scale)
  x, y = x / sigma_x[None], y / sigma_y[None]
  procrustes = kind == 'orthogonal'
  adapter = features.fit(
    x,
    y,
    kind='orthogonal' if procrustes else 'affine',
    ridge=None if procrustes else ridge,
  )
  weight = adapter.weight
  assert weight is not None
  if kind == 'nearest_orthogonal':
    u, _, vt = jnp.linalg.svd(weight, full_matrices=False)
    weight = _product(u, vt)
  weight = weight * sigma_y[None] / sigma_x[:, None]
  bias = mean_y - _product(mean_x, weight)
  return dataclasses.replace(adapter, weight=weight, bias=bias)


def invert(adapter: _adapter.Adapter) -> _adapter.Adapter:
  r"""Returns the map back, by the pseudo-inverse.

  .. math:: x = (y - b) W^+

  Exact if W is square and of full rank, or leads from a narrower space to a
  wider one; from a wider to a narrower one, what was lost comes back as the
  least of all that would translate to the same.

  Args:
    adapter: one with a weight, a bias and nothing else, as of ``translate``.

  Returns:
    Such an adapter.

  Raises:
    ValueError: if the adapter has no weight, or a part that has no inverse.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jnp.asarray([[0.0], [1.0], [2.0]])
    >>> back = invert(translate(x, 3 * x + 1, kind='affine'))
    >>> round(float(back.weight[0, 0]), 4), round(float(back.bias[0]), 4)
    (0.3333, -0.3333)
  """
  parts = {
    name: getattr(adapter, name)
    for name in ('anchors', 'down', 'before', 'after', 'grid')
  }
  extra = [name for name, part in parts.items() if part is not None]
  if adapter.weight is None or extra:
    named = ', '.join(extra) or 'no weight'
    raise ValueError(
      f'invert: the adapter has {named}: only a weight and a bias are inverted'
    )
  weight = jnp.linalg.pinv(adapter.weight)
  bias = adapter.bias
  if bias is not None:
    bias = -_product(bias, weight)
  return _adapter.Adapter(weight=weight, bias=bias)


def _check_names(kind: str, scale: str) -> None:
  for name, value, names in (('kind', kind, KINDS), ('scale', scale, SCALES)):
    if value not in names:
      hint = tree.nearest(value, names)
      raise ValueError(
        f"translate: no {name} '{value}'{hint}: there are {', '.join(names)}"
      )


def _spread(x: types.Array, scale: str) -> types.Array:
  """Returns sigma, ``[d]``, of centred features."""
  square = jnp.mean(jnp.square(x), 0)
  if scale == 'none':
    square = jnp.ones_like(square)
  elif scale == 'common':
    square = jnp.full_like(square, jnp.sum(square))
  apart = square > 0
  return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 1.0)


def _product(x: types.Array, y: types.Array) -> types.Array:
  return jnp.matmul(x, y, precision='highest')
