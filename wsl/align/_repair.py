"""REPAIR: restore the moments of units after a merge."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _arguments


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
  r"""Rescales and shifts all units to interpolate the endpoints' statistics.

  Averaged units partly cancel, so their standard deviation collapses with
  depth. With the mean m and the variance v of a unit of the merged model, and
  m_t, v_t of the endpoints, the models that were merged,

  .. math::
    \mu = \sum_t c_t m_t, \quad \sigma = \sum_t c_t \sqrt{v_t}, \quad
    \gamma = \sqrt{\frac{\sigma^2 + \epsilon}{v + \epsilon}}, \qquad
    W \leftarrow W \gamma, \quad b \leftarrow \mu + \gamma (b - m).

  The correction of a layer changes the inputs of the next one, so the model is
  measured and corrected until all moments agree: after k passes the first k
  layers are correct, for any order of the leaves.

  Args:
    params: the merged model.
    measure: a function ``params -> moments``, such as
      ``lambda p: stats.moments(apply_fn, p, batches)``.
    endpoints: the moments of the models that were merged, after alignment:
      ``[measure(a), measure(align.permute(b, ...))]``.
    weights: c_t, the weights of the merge, of sum 1: ``(1 - t, t)`` on the
      line between two models; ``None`` for equal weights.
    shift: ``False`` only rescales both W and b (RESCALE): means are scaled, not
      matched.
    leaves: which maps to correct, a regular expression or a predicate; ``None``
      for all. The correction of a map that is followed by a normalisation has
      no effect: leave it out, and see ``reset_batch_stats``.
    passes: the maximal number of measurements; 1 corrects all layers once by
      the moments of the uncorrected model. A model can be worse than before
      after fewer passes than it has layers.
    tolerance: stop when all gains are within this of 1, and all shifts within
      this fraction of the standard deviation.
    epsilon: added to variances, in squared units of the activations. A unit of
      zero variance is not rescaled.

  Returns:
    The corrected model, of the dtypes of ``params``.

  Raises:
    ValueError: if a chosen map has no bias to shift, the moments do not
      fit the model, or an argument is out of range.

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

  Differs from the official code in that moments are over all data instead of
  means of batch moments, epsilon is added to both variances, so that a model
  with the target moments is a fixed point, and sums at residual connections are
  not corrected. With N endpoints standard deviations are averaged, as with two;
  the code of C2M3 (arXiv:2405.17897) averages variances.
  """
  tree.check_scalars('repair', tolerance=tolerance, epsilon=epsilon)
  if passes < 1:
    raise ValueError(f'repair: passes={passes}, expected at least 1')
  if epsilon < 0:
    raise ValueError(f'repair: epsilon={epsilon}, expected >= 0')
  tree.check_not_narrowed('repair', params)
  params = tree.read(params)
  shares = _shares(weights, len(endpoints))
  ends = [_moments(m, params, f'endpoint {i}') for i, m in enumerate(endpoints)]
  moments = _moments(measure(params), params, 'the result of measure')
  names = _chosen_maps(moments, leaves, shift)
  targets = {n: _target(n, moments[n], ends, shares) for n in names}
  # All layers are corrected at once. The correction of a layer is final as soon
  # as all layers before it are, so k layers converge in k passes.
  for i in range(passes):
    if i:
      moments = _moments(measure(params), params, 'the result of measure')
    corrections = {
      n: _correction(moments[n], targets[n], shift, epsilon) for n in names
    }
    done = [
      _converged(moments[n], targets[n], corrections[n], shift, tolerance)
      for n in names
    ]
    if all(done):
      break
    params = _fold_in(params, moments, corrections)
  return params


class _Target(NamedTuple):
  """The target mean and standard deviation of the units of a map."""

  mean: types.Array
  deviation: types.Array


class _Correction(NamedTuple):
  """A correction of the outputs of a map, ``y <- gain * y + shift``."""

  gain: types.Array
  shift: types.Array


def _correction(
  found: types.Moments, target: _Target, shift: bool, epsilon: float
) -> _Correction:
  """Returns the correction that turns the moments found into the target's."""
  # y has mean m and variance v, so gain y + shift has mean gain m + shift and
  # variance gain^2 v: solve both for the target (up to epsilon).
  wanted = jnp.square(target.deviation) + epsilon
  # No gain changes a variance of zero, and the ratio can be 0 / 0.
  varies = found.variance > 0
  ratio = wanted / jnp.where(varies, found.variance + epsilon, 1)
  gain = jnp.where(varies, jnp.sqrt(ratio), 1)
  if not shift:
    return _Correction(gain, jnp.zeros_like(gain))
  return _Correction(gain, target.mean - gain * found.mean)


def _converged(
  found: types.Moments,
  target: _Target,
  correction: _Correction,
  shift: bool,
  tolerance: float,
) -> bool:
  """Returns whether the correction is within tolerance for all units."""
  close = jnp.abs(correction.gain - 1) <= tolerance
  if shift:
    difference = jnp.abs(target.mean - found.mean)
    close &= difference <= tolerance * target.deviation
  return bool(close.all())


def _fold_in(
  params: types.Params,
  moments: dict[str, types.Moments],
  corrections: dict[str, _Correction],
) -> types.Params:
  """Folds corrections into weights and biases: W gain, b gain + shift."""
  biases = {moments[name].bias: c for name, c in corrections.items()}

  def correct_leaf(name: str, x: types.Array) -> types.Array:
    wide = tree.wide(x)
    if name in corrections:
      gain = jnp.expand_dims(corrections[name].gain, moments[name].axes)
      wide = wide * gain.astype(wide.dtype)
    elif name in biases:
      gain, shift = (y.astype(wide.dtype) for y in biases[name])
      wide = wide * gain.reshape(x.shape) + shift.reshape(x.shape)
    else:
      return x
    return wide.astype(x.dtype)

  return tree.map_named(correct_leaf, params)


def _target(
  name: str,
  found: types.Moments,
  ends: list[dict[str, types.Moments]],
  shares: list[float],
) -> _Target:
  """Returns the interpolated mean and standard deviation of the endpoints."""
  for i, end in enumerate(ends):
    if name not in end or end[name].mean.shape != found.mean.shape:
      shape = end[name].mean.shape if name in end else 'no moments'
      raise ValueError(
        f"repair: endpoint {i} has {shape} at '{name}', the merged model "
        f'{found.mean.shape}: measure models of equal widths by one function'
      )
  pairs = [(c, end[name]) for c, end in zip(shares, ends)]
  mean = sum((c * m.mean for c, m in pairs), jnp.zeros_like(found.mean))
  deviations = [c * jnp.sqrt(m.variance) for c, m in pairs]
  return _Target(mean, sum(deviations, jnp.zeros_like(found.mean)))


def _moments(
  statistics: types.Tree, params: types.Params, label: str
) -> dict[str, types.Moments]:
  """Returns moments by the names of their leaves."""
  return _arguments.by_leaf(
    statistics,
    params,
    types.Moments,
    argument=f'repair: {label}',
    hint='a tree of stats.moments',
  )


def _chosen_maps(
  moments: dict[str, types.Moments], leaves: types.Leaves | None, shift: bool
) -> list[str]:
  """Returns the names of the maps to correct; to shift them needs a bias."""
  names = list(moments)
  if leaves is not None:
    means = {name: m.mean for name, m in moments.items()}
    chosen = tree.select(means, leaves)
    names = [name for name in names if chosen[name]]
  if not names:
    raise ValueError('repair: no linear map is chosen, see stats.linear_maps')
  for name in names:
    if shift and not moments[name].bias:
      raise ValueError(
        f"repair: the map '{name}' has no bias to shift: leave it out of "
        'leaves, or rescale only (shift=False)'
      )
  return names


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
  """Returns the weights of the endpoints, equal by default."""
  shares = [1 / max(count, 1)] * count if weights is None else [*weights]
  if len(shares) != count or not np.isclose(sum(shares), 1):
    raise ValueError(
      f'repair: weights {shares} for {count} endpoints, expected one for each, '
      'of sum 1'
    )
  return shares
