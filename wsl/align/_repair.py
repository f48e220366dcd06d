"""REPAIR: give the units of a merged model the moments of its endpoints."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def repair(
  params: types.Params,
  *,
  measure: Callable[[types.Params], types.Tree],
  endpoints: Sequence[types.Tree],
  weights: Sequence[float] | None = None,
  shift: bool = True,
  leaves: types.Leaves | None = None,
  passes: int = 32,
  tolerance: float = 1e-3,
  epsilon: float = 1e-5,
) -> types.Params:
  r"""Rescales and shifts every unit to the endpoints' mean and deviation.

  Averaged units partly cancel, so their deviation collapses, layer by layer.
  With m and v the moments of the merged model, and m_t, v_t those of the
  models that were merged,

  .. math::
    \mu = \sum_t c_t m_t, \quad \sigma = \sum_t c_t \sqrt{v_t}, \quad
    \gamma = \sqrt{\frac{\sigma^2 + \epsilon}{v + \epsilon}}, \qquad
    W \leftarrow W \gamma, \quad b \leftarrow \mu + \gamma (b - m).

  Correcting a layer changes what the next one sees, so the model is measured
  and corrected again until all moments are met: after k passes the first k
  layers are right, whatever the order of the leaves.

  Args:
    params: the merged model.
    measure: a function ``params -> moments``, such as
      ``lambda p: stats.moments(apply_fn, p, batches)``.
    endpoints: the moments of the models that were merged, permuted as they
      were: ``[measure(a), measure(align.permute(b, ...))]``.
    weights: c_t, the weights of the merge, of sum 1: ``(1 - t, t)`` on the
      way from one model to the other; ``None`` for equal ones.
    shift: ``False`` only rescales, W and b alike (RESCALE): a mean is then
      scaled, not set.
    leaves: which maps are corrected, a regular expression or a predicate;
      ``None`` for all. Where a normalisation follows a map, correcting the map
      does nothing: leave it out, and see ``reset_batch_stats``.
    passes: how often the model is measured at most; 1 for a single correction
      of all layers from the uncorrected model. Fewer passes than layers can
      leave a model worse than it was.
    tolerance: passes end once no unit is to be scaled by more than this, nor
      shifted by more than this share of its deviation.
    epsilon: added to variances, in the square of the units' scale. A unit
      that never varies is not rescaled.

  Returns:
    The corrected model, of the dtypes of ``params``.

  Raises:
    ValueError: if a chosen map has no bias to shift, the moments belong to
      another model, or an argument is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stats
    >>> dense = lambda p, x: x @ p['w'] + p['b'][None]
    >>> a = {'b': jnp.asarray([0.0, 1.0]), 'w': jnp.asarray([[1.0, 2.0]])}
    >>> half = {'b': jnp.asarray([0.0, 1.0]), 'w': jnp.asarray([[0.5, 2.0]])}
    >>> measure = lambda p: stats.moments(dense, p, [jnp.eye(4, 1)])
    >>> fixed = repair(half, measure=measure, endpoints=[measure(a)] * 2,
    ...                epsilon=0.0)
    >>> fixed['w'].round(3).tolist()
    [[1.0, 2.0]]

  Reference:
    Jordan et al., "REPAIR: REnormalizing Permuted Activations for
    Interpolation Repair", 2022, arXiv:2211.08403. Rescaling alone: Qu and
    Horvath, "Rethink Model Re-Basin and the Linear Mode Connectivity", 2024,
    arXiv:2402.05966.

  Differs from the official code in taking the moments over all data instead of
  the mean of each batch's, in epsilon under both deviations, so that a model
  which has its targets stays as it is, and in having no correction of sums:
  residual junctions are not touched.
  """
  _check(passes, epsilon)
  params = tree.read(params)
  shares = _shares(weights, len(endpoints))
  ends = [_named(m, params, f'endpoint {i}') for i, m in enumerate(endpoints)]
  moments = _named(measure(params), params, 'what measure gives')
  names = _chosen(moments, leaves, shift)
  targets = {n: _target(n, moments[n], ends, shares) for n in names}
  for i in range(passes):
    if i:
      moments = _named(measure(params), params, 'what measure gives')
    steps = {n: _step(moments[n], targets[n], shift, epsilon) for n in names}
    if all(
      _meets(moments[n], targets[n], steps[n], shift, tolerance) for n in names
    ):
      break
    params = _apply(params, moments, steps)
  return params


class _Target(NamedTuple):
  """The mean and the deviation that the units of a map are to have."""

  mean: types.Array
  deviation: types.Array


class _Step(NamedTuple):
  """One correction of a map, ``y <- gain * y + shift``."""

  gain: types.Array
  shift: types.Array


def _step(
  found: types.Moments, target: _Target, shift: bool, epsilon: float
) -> _Step:
  wanted = jnp.square(target.deviation) + epsilon
  # A variance of zero says nothing about the scale (and may divide 0 by 0).
  varies = found.variance > 0
  ratio = wanted / jnp.where(varies, found.variance + epsilon, 1)
  gain = jnp.where(varies, jnp.sqrt(ratio), 1)
  if not shift:
    return _Step(gain, jnp.zeros_like(gain))
  return _Step(gain, target.mean - gain * found.mean)


def _meets(
  found: types.Moments,
  target: _Target,
  step: _Step,
  shift: bool,
  tolerance: float,
) -> bool:
  close = jnp.abs(step.gain - 1) <= tolerance
  if shift:
    off = jnp.abs(target.mean - found.mean)
    close &= off <= tolerance * target.deviation
  return bool(close.all())


def _apply(
  params: types.Params,
  moments: dict[str, types.Moments],
  steps: dict[str, _Step],
) -> types.Params:
  """Folds the corrections into weights and biases."""
  biases = {moments[name].bias: step for name, step in steps.items()}

  def one(name: str, x: types.Array) -> types.Array:
    wide = tree.wide(x)
    if name in steps:
      gain = jnp.expand_dims(steps[name].gain, moments[name].axes)
      wide = wide * gain.astype(wide.dtype)
    elif name in biases:
      gain, shift = (y.astype(wide.dtype) for y in biases[name])
      wide = wide * gain.reshape(x.shape) + shift.reshape(x.shape)
    else:
      return x
    return wide.astype(x.dtype)

  return tree.map_named(one, params)


def _target(
  name: str,
  found: types.Moments,
  ends: list[dict[str, types.Moments]],
  shares: list[float],
) -> _Target:
  for i, end in enumerate(ends):
    if name not in end or end[name].mean.shape != found.mean.shape:
      shape = end[name].mean.shape if name in end else 'no moments'
      raise ValueError(
        f"repair: endpoint {i} has {shape} at '{name}', the merged model "
        f'{found.mean.shape}: measure models of one kind in one way'
      )
  pairs = [(c, end[name]) for c, end in zip(shares, ends)]
  mean = sum((c * m.mean for c, m in pairs), jnp.zeros_like(found.mean))
  deviations = [c * jnp.sqrt(m.variance) for c, m in pairs]
  return _Target(mean, sum(deviations, jnp.zeros_like(found.mean)))


def _named(
  moments: types.Tree, params: types.Params, label: str
) -> dict[str, types.Moments]:
  is_leaf = lambda x: isinstance(x, types.Moments)
  by_name = tree.named(moments, is_leaf=is_leaf)
  names = tree.named(params)
  for name, leaf in by_name.items():
    if not is_leaf(leaf) or name not in names:
      raise ValueError(
        f"repair: {label} holds {type(leaf).__name__} at '{name}', expected "
        'types.Moments at leaves of the model: give a tree of stats.moments'
      )
  return by_name


def _chosen(
  moments: dict[str, types.Moments], leaves: types.Leaves | None, shift: bool
) -> list[str]:
  names = list(moments)
  if leaves is not None:
    means = {name: m.mean for name, m in moments.items()}
    chosen = tree.select(means, leaves)
    names = [name for name in names if chosen[name]]
  if not names:
    raise ValueError('repair: no linear map is chosen: see stats.linear_maps')
  for name in names:
    if shift and not moments[name].bias:
      raise ValueError(
        f"repair: the map '{name}' has no bias to shift: leave it out of "
        'leaves, or rescale only (shift=False)'
      )
  return names


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
  shares = [1 / max(count, 1)] * count if weights is None else [*weights]
  if len(shares) != count or not np.isclose(sum(shares), 1):
    raise ValueError(
      f'repair: weights {shares} for {count} endpoints, expected one for each, '
      'of sum 1'
    )
  return shares


def _check(passes: int, epsilon: float) -> None:
  if passes < 1:
    raise ValueError(f'repair: passes={passes}, expected at least 1')
  if epsilon < 0:
    raise ValueError(f'repair: epsilon={epsilon}, expected >= 0')
