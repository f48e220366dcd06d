"""Means of several models on the sphere: one tangent step, or Karcher's."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.merge import _checks, _stack


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
  models, weights = _checked('multislerp', models, weights)
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
  return _map_floats(_multislerp, [*models, *origin], weights, hyper)


@deltas.on_models
def karcher(
  models: Sequence[types.Params],
  *,
  weights: Any = None,
  steps: int = 10,
  tolerance: float = 1e-5,
) -> types.Params:
  r"""Averages the directions of models on the sphere, and their norms.

  The direction u is the Karcher mean of the unit vectors :math:`u_t`, which
  minimises :math:`\sum_t w_t \angle(u, u_t)^2`, found by the fixed point

  .. math:: u \leftarrow \exp_u\Big(\sum_t w_t \log_u u_t\Big), \qquad
    \log_u u_t = \frac{\theta_t}{\sin\theta_t} (u_t - \cos\theta_t\, u)

  from the normalised mean; :math:`\theta = u \sum_t w_t |x_t|`, in each leaf.

  Args:
    models: T models of one structure, leaves ``[...]``.
    weights: w, one number for each model; divided by their sum; equal ones by
      default.
    steps: the greatest number of steps.
    tolerance: vectors shorter than it have no direction; the iteration ends
      when a step is shorter.

  Returns:
    A model, leaves ``[...]`` in the dtype of the first; integer leaves are
    copied. One model is returned as it is.

  Raises:
    ValueError: as ``multislerp``, or if ``steps`` is no integer >= 0, or
      ``tolerance`` is negative.

  Example:
    >>> import jax.numpy as jnp
    >>> models = [{'w': jnp.asarray(x)} for x in ([1.0, 0.0], [0.0, 3.0])]
    >>> [f'{x:.4f}' for x in karcher(models)['w']]
    ['1.4142', '1.4142']

  Reference:
    Karcher, "Riemannian center of mass and mollifier smoothing", 1977;
    mergekit 0.1.5, method ``karcher``.

  Differs from mergekit in the angle, which is the arc tangent of sine and
  cosine: the arc cosine loses half of the digits of small angles.
  """
  tree.check_scalars('karcher', tolerance=tolerance)
  _checks.at_least_zero('karcher', 'tolerance', tolerance)
  _checks.steps('karcher', steps)
  if weights is None:
    weights = [1.0] * len(models)
  hyper = {'steps': tree.Static(steps), 'tolerance': tolerance}
  models, weights = _checked('karcher', models, weights)
  _checks.some_sum('karcher', weights)
  if len(models) == 1:
    return models[0]
  return _map_floats(_karcher, models, weights, hyper)


def _checked(
  function: str, models: Sequence[types.Params], weights: Any
) -> tuple[list[types.Params], types.Array]:
  """Checks models and weights; the models come in the first's containers."""
  if not models:
    raise ValueError(f'{function}: no models given, at least one is needed')
  weights = _checks.weights(function, weights, len(models))
  named = {f'model {t}': model for t, model in enumerate(models)}
  return deltas.check(function, named), weights


def _map_floats(
  kernel: Any, models: Sequence[types.Params], weights: Any, hyper: Any
) -> types.Params:
  """Applies a kernel to float leaves; integers are those of the first model."""

  def merge(weights: Any, *leaves: Any) -> Any:
    if not tree.is_float(leaves[0]):
      return leaves[0]
    return tree.apply_kernel(kernel, *leaves, weights=weights, **hyper)

  return jax.tree.map(merge, tree.at_leaves(weights, models[0]), *models)


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
  norms = _norms(x)
  units = x / _stack.expand_rank((norms + eps).astype(x.dtype), x)
  mean = _combine(w, units)
  length = _norm(mean)
  cancelled = length < eps
  mean = mean / jnp.where(cancelled, 1, length).astype(mean.dtype)
  along = _dots(units, mean[None]).astype(x.dtype)
  v = _combine(w, units - _stack.expand_rank(along, x) * mean[None])
  r = _norm(v) + eps
  cosine, ratio = (y.astype(v.dtype) for y in (jnp.cos(r), jnp.sin(r) / r))
  arc = (mean * cosine + v * ratio) * jnp.sum(norms * w).astype(v.dtype)
  merged = jnp.where(cancelled, _combine(w, x), arc)
  return (origin + merged).astype(leaves[0].dtype)


def _karcher(
  *leaves: types.Array,
  weights: types.Array,
  steps: int,
  tolerance: types.Array,
) -> types.Array:
  """Iterates to the Karcher mean of unit vectors; one leaf."""
  x = jnp.stack([tree.wide(leaf) for leaf in leaves])
  w = weights.astype(x.real.dtype)
  w = w / jnp.sum(w)
  tolerance = jnp.asarray(tolerance).astype(w.dtype)
  norms = _norms(x)
  real = norms > tolerance
  share = jnp.where(real, w, 0)
  share = share / jnp.where(jnp.any(real), jnp.sum(share), 1)
  safe = jnp.where(real, norms, 1)
  units = x / _stack.expand_rank(safe.astype(x.dtype), x)
  mean = _combine(share, units)
  length = _norm(mean)
  first = jax.lax.dynamic_index_in_dim(units, jnp.argmax(real), keepdims=False)
  first = jnp.where(jnp.any(real), first, jnp.zeros_like(mean))
  cancelled = (length < tolerance) | (length == 0)
  start = mean / jnp.where(cancelled, 1, length).astype(mean.dtype)
  start = jnp.where(cancelled, first, start)

  def step(_: Any, u: types.Array) -> types.Array:
    cosine = _dots(units, u[None])
    along = _stack.expand_rank(cosine.astype(u.dtype), units)
    side = units - along * u[None]
    sine = _norms(side)
    angle = jnp.arctan2(sine, cosine)
    counts = (angle >= tolerance) & (sine > 0)
    ratio = jnp.where(counts, angle / jnp.where(sine > 0, sine, 1), 0)
    tangent = _combine(share * ratio, side)
    length = _norm(tangent)
    # Once a step is below the tolerance, all further ones are the same: none.
    moves = (length >= tolerance) & (length > 0)
    safe = jnp.where(moves, length, 1)
    cosine, ratio = jnp.cos(safe), jnp.sin(safe) / safe
    moved = cosine.astype(u.dtype) * u + ratio.astype(u.dtype) * tangent
    unit = moved / jnp.where(moves, _norm(moved), 1).astype(u.dtype)
    return jnp.where(moves, unit, u)

  u = jax.lax.fori_loop(0, steps, step, start)
  merged = u * jnp.sum(w * norms).astype(u.dtype)
  merged = jnp.where(jnp.any(real), merged, jnp.zeros_like(merged))
  return merged.astype(leaves[0].dtype)


def _dots(x: types.Array, y: types.Array) -> types.Array:
  """Returns the inner products of pairs of rows of ``[T, ...]``, ``[T]``."""
  return tree.sum_entries(tree.inner(x, y))


def _norms(x: types.Array) -> types.Array:
  """Returns the Euclidean norms ``[T]``; their gradients at zero are zero."""
  square = _dots(x, x)
  root = jnp.sqrt(jnp.where(square == 0, 1, square))
  return jnp.where(square == 0, 0, root)


def _norm(x: types.Array) -> types.Array:
  """Returns the Euclidean norm of one array."""
  return _norms(x[None])[0]


def _combine(w: types.Array, x: types.Array) -> types.Array:
  """Returns the sum of ``[T, ...]`` by weights ``[T]``."""
  return _stack.sum_models(_stack.weigh(x, w))
