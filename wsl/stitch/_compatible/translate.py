"""Translation between latent spaces, fitted on paired examples."""

import dataclasses

import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch import _adapter, _anchors
from wsl.stitch._fit import closed_form, features

KINDS = ('affine', 'orthogonal', 'nearest_orthogonal')
SCALES = ('none', 'gain', 'common', 'each')


def translate(
  source: types.ArrayLike | _anchors.Anchors,
  target: types.ArrayLike | _anchors.Anchors,
  *,
  kind: str = 'orthogonal',
  scale: str = 'none',
  ridge: float | None = None,
  centre: bool = True,
) -> _adapter.Adapter:
  r"""Fits a map from one encoder's features to another's on few examples.

  .. math:: y = \Big( \frac{x - \mu_x}{\sigma_x} W \Big) \sigma_y + \mu_y

  ======================  ==================================================
  ``kind``                W
  ======================  ==================================================
  ``affine``              the least squares solution, with ``ridge``
  ``orthogonal``          the orthogonal matrix of least squared error
                          (Procrustes)
  ``nearest_orthogonal``  the orthogonal matrix nearest to that of least
                          squares
  ======================  ==================================================

  The narrower space is padded with zeros: an orthogonal map from 3 to 5
  dimensions has 3 orthonormal rows.

  Args:
    source: features x of n examples, ``[n, d]``, or anchors.
    target: features y of the same examples, ``[n, m]``, or anchors; two sets
      of anchors are compared by id.
    kind: the kind of W, a row of the table.
    scale: the scaling sigma: ``'none'`` for 1; ``'gain'`` for 1 and W times the
      one number of least squared error; ``'common'`` for one number, the root
      mean square distance from mu; ``'each'`` for the standard deviation of
      each feature. Least squares without ridge is the same for all of them.
    ridge: ridge of least squares, as for ``fit``; unused for ``orthogonal``.
    centre: whether mu is the mean; it is 0 otherwise, and the map is linear:
      distances and deviations are then from the origin, and a constant feature
      is one like all others.

  Returns:
    An adapter with a weight, and a bias if it is centred, for ``apply_adapter``
    and ``invert``.

  Raises:
    ValueError: if the numbers of examples or the ids differ, or a name is
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

  Differs from the official code, which fits ``affine`` by 300 steps of Adam, by
  the closed form, and by an inverse.
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
  if not centre:
    mean_x, mean_y = jnp.zeros_like(mean_x), jnp.zeros_like(mean_y)
  x, y = x - mean_x[None], y - mean_y[None]
  sigma_x, sigma_y = _spread(x, scale), _spread(y, scale)
  x, y = x / sigma_x[None], y / sigma_y[None]
  procrustes = kind == 'orthogonal'
  solver = 'orthogonal' if procrustes else 'affine'
  ridge = None if procrustes else ridge
  if centre:
    adapter = features.fit(x, y, kind=solver, ridge=ridge)
  else:
    adapter = closed_form.fit_moments(
      _about_origin(x, y), kind=solver, ridge=ridge
    )
  weight = adapter.weight
  assert weight is not None
  if kind == 'nearest_orthogonal':
    # For W = U S V^T, the polar factor U V^T minimises ||W - Q||_F over
    # orthogonal Q: it maximises tr(Q^T W), which is at most tr(S).
    u, _, vt = jnp.linalg.svd(weight, full_matrices=False)
    weight = tree.matmul(u, vt)
  if scale == 'gain':
    # min_s |s x W - y|^2: s = <x W, y> / |x W|^2.
    mapped = tree.matmul(x, weight)
    power = jnp.sum(jnp.square(mapped))
    weight = weight * jnp.where(power > 0, jnp.sum(mapped * y) / power, 1)
  # ((x - mu_x) / sigma_x W) sigma_y + mu_y = x W' + b, with
  # W' = diag(1 / sigma_x) W diag(sigma_y) and b = mu_y - mu_x W'.
  weight = weight * sigma_y[None] / sigma_x[:, None]
  bias = mean_y - tree.matmul(mean_x, weight) if centre else None
  return dataclasses.replace(adapter, weight=weight, bias=bias)


def _about_origin(x: types.Array, y: types.Array) -> types.CrossMoments:
  """Returns second moments about 0, in place of those about the mean."""
  rows = len(x)
  zeros = jnp.zeros_like
  return types.CrossMoments(
    count=jnp.asarray(rows),
    mean_x=zeros(x[0]),
    mean_y=zeros(y[0]),
    xx=tree.matmul(x.T, x) / rows,
    xy=tree.matmul(x.T, y) / rows,
  )


def invert(adapter: _adapter.Adapter) -> _adapter.Adapter:
  r"""Inverts a translation by the pseudo-inverse.

  .. math:: x = (y - b) W^+

  Exact if W has full row rank, that is for a full-rank map to a space of the
  same width or a wider one. For a map to a narrower space it returns the x of
  least norm among those with the same translation.

  Args:
    adapter: an adapter with a weight and at most a bias, as from ``translate``.

  Returns:
    An adapter with a weight, and a bias if the given one has it.

  Raises:
    ValueError: if the adapter has no weight, or any other part.

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
    bias = -tree.matmul(bias, weight)
  return _adapter.Adapter(weight=weight, bias=bias)


def _check_names(kind: str, scale: str) -> None:
  """Checks the kind and the scale against the known names."""
  for name, value, names in (('kind', kind, KINDS), ('scale', scale, SCALES)):
    if value not in names:
      hint = tree.nearest(value, names)
      raise ValueError(
        f"translate: no {name} '{value}'{hint}: there are {', '.join(names)}"
      )


def _spread(x: types.Array, scale: str) -> types.Array:
  """Returns sigma, ``[d]``, of features less mu; 1 for features of 0."""
  square = jnp.mean(jnp.square(x), 0)
  if scale in ('none', 'gain'):
    square = jnp.ones_like(square)
  elif scale == 'common':
    square = jnp.full_like(square, jnp.sum(square))
  return jnp.sqrt(jnp.where(square > 0, square, 1.0))
