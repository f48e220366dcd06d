"""Karcher means of models: of unit vectors, by steps in the tangent space."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.merge import _checks, _stack
from wsl.merge._spherical import sphere


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
  _checks.integer('karcher', 'steps', steps, least=0)
  if weights is None:
    weights = [1.0] * len(models)
  hyper = {'steps': tree.Static(steps), 'tolerance': tolerance}
  models, weights = sphere.checked('karcher', models, weights)
  _checks.some_sum('karcher', weights)
  if len(models) == 1:
    return models[0]
  return sphere.map_alike(_karcher, models, weights, hyper)


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
  norms = sphere.norms(x)
  real = norms > tolerance
  share = jnp.where(real, w, 0)
  share = share / jnp.where(jnp.any(real), jnp.sum(share), 1)
  safe = jnp.where(real, norms, 1)
  units = x / _stack.expand_rank(safe.astype(x.dtype), x)
  mean = sphere.combine(share, units)
  length = sphere.norm(mean)
  first = jax.lax.dynamic_index_in_dim(units, jnp.argmax(real), keepdims=False)
  first = jnp.where(jnp.any(real), first, jnp.zeros_like(mean))
  cancelled = (length < tolerance) | (length == 0)
  start = mean / jnp.where(cancelled, 1, length).astype(mean.dtype)
  start = jnp.where(cancelled, first, start)

  def step(_: Any, u: types.Array) -> types.Array:
    cosine = sphere.dots(units, u[None])
    along = _stack.expand_rank(cosine.astype(u.dtype), units)
    side = units - along * u[None]
    sine = sphere.norms(side)
    angle = jnp.arctan2(sine, cosine)
    counts = (angle >= tolerance) & (sine > 0)
    ratio = jnp.where(counts, angle / jnp.where(sine > 0, sine, 1), 0)
    tangent = sphere.combine(share * ratio, side)
    length = sphere.norm(tangent)
    # Once a step is below the tolerance, all further ones are the same: none.
    moves = (length >= tolerance) & (length > 0)
    safe = jnp.where(moves, length, 1)
    cosine, ratio = jnp.cos(safe), jnp.sin(safe) / safe
    moved = cosine.astype(u.dtype) * u + ratio.astype(u.dtype) * tangent
    unit = moved / jnp.where(moves, sphere.norm(moved), 1).astype(u.dtype)
    return jnp.where(moves, unit, u)

  u = jax.lax.fori_loop(0, steps, step, start)
  merged = u * jnp.sum(w * norms).astype(u.dtype)
  merged = jnp.where(jnp.any(real), merged, jnp.zeros_like(merged))
  return merged.astype(leaves[0].dtype)
