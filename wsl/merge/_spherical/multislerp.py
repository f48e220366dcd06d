"""Means of models on the sphere, by one step in the tangent space."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.merge import _checks, _stack
from wsl.merge._spherical import sphere


@deltas.on_models
def multislerp(
  models: Sequence[types.Params],
  *,
  weights: Any,
  base: types.Params | None = None,
  normalize: bool = True,
  eps: float = 1e-8,
) -> types.Params:
  r"""Averages models on the sphere by one step in a tangent space.

  With :math:`x_t = \theta_t - \theta_0`, unit vectors :math:`u_t` and their
  weighted mean, normalised, :math:`m`:

  .. math:: v = \sum_t w_t \big(u_t - (u_t \cdot m) m\big), \quad
    \theta = \theta_0 + \Big(m \cos|v| + v \frac{\sin|v|}{|v|}\Big)
    \sum_t w_t |x_t|

  in each leaf. It is not the barycentre on the sphere: see ``karcher``.

  Args:
    models: T models of one structure, leaves ``[...]``.
    weights: w, one number for each model.
    base: the origin theta_0; None is zero.
    normalize: whether the weights are divided by their sum.
    eps: added to norms, so that zero vectors are divided safely.

  Returns:
    A model, leaves ``[...]`` in the dtype of the first; integer leaves are
    copied. One model is returned as it is.

  Raises:
    ValueError: if there is not one weight for each model, or their sum is zero
      where they are divided by it, or ``eps`` is negative; or if the models
      differ in structure, shape, dtype or integers, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> models = [{'w': jnp.asarray(x)} for x in ([1.0, 0.0], [0.0, 1.0])]
    >>> [f'{x:.4f}' for x in multislerp(models, weights=[1, 1])['w']]
    ['0.7071', '0.7071']

  Reference:
    Goddard, "Multi-SLERP", mergekit 0.1.5, method ``multislerp``.

  Differs from mergekit where the unit vectors cancel: the weighted sum is
  returned there; mergekit does so for two models only, and else raises.
  """
  tree.check_scalars('multislerp', eps=eps)
  _checks.at_least_zero('multislerp', 'eps', eps)
  normalize = bool(normalize)
  hyper = {'normalize': normalize, 'eps': eps}
  models, weights = sphere.checked('multislerp', models, weights)
  if normalize:
    _checks.some_sum('multislerp', weights)
  if len(models) == 1:
    return models[0]
  origin = []
  if base is not None:
    origin = deltas.check('multislerp', {'model 0': models[0], 'base': base})[
      1:
    ]
  hyper['based'] = bool(origin)
  return sphere.map_floats(_multislerp, [*models, *origin], weights, hyper)


def _multislerp(
  *leaves: types.Array,
  weights: types.Array,
  normalize: bool,
  eps: types.Array,
  based: bool,
) -> types.Array:
  """Takes one tangent step from the normalised mean; one leaf."""
  *models, origin = [*leaves] if based else [*leaves, jnp.zeros_like(leaves[0])]
  origin = tree.wide(origin)
  x = jnp.stack([tree.wide(y) - origin for y in models])
  w = weights.astype(x.real.dtype)
  w = w / jnp.sum(w) if normalize else w
  eps = jnp.asarray(eps).astype(w.dtype)
  norms = sphere.norms(x)
  units = x / _stack.expand_rank((norms + eps).astype(x.dtype), x)
  mean = sphere.combine(w, units)
  length = sphere.norm(mean)
  cancelled = length < eps
  mean = mean / jnp.where(cancelled, 1, length).astype(mean.dtype)
  along = sphere.dots(units, mean[None]).astype(x.dtype)
  v = sphere.combine(w, units - _stack.expand_rank(along, x) * mean[None])
  r = sphere.norm(v) + eps
  cosine, ratio = (y.astype(v.dtype) for y in (jnp.cos(r), jnp.sin(r) / r))
  arc = (mean * cosine + v * ratio) * jnp.sum(norms * w).astype(v.dtype)
  merged = jnp.where(cancelled, sphere.combine(w, x), arc)
  return (origin + merged).astype(leaves[0].dtype)
