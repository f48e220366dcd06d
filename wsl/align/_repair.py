"""REPAIR: restore the moments of units after a merge."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from wsl import tree, types
from wsl.align import _arguments, _unit_moments


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
  the code of C2M3 (arXiv:2405.17897) averages variances. A variant without a
  pass over the merged model is ``repair_in_closed_form``.
  """
  tree.check_scalars('repair', tolerance=tolerance, epsilon=epsilon)
  if passes < 1:
    raise ValueError(f'repair: passes={passes}, expected at least 1')
  if epsilon < 0:
    raise ValueError(f'repair: epsilon={epsilon}, expected >= 0')
  tree.check_not_narrowed('repair', params)
  params = tree.read(params)
  shares = _unit_moments.shares(weights, len(endpoints), caller='repair')
  ends = [_moments(m, params, f'endpoint {i}') for i, m in enumerate(endpoints)]
  moments = _moments(measure(params), params, 'the result of measure')
  names = _unit_moments.chosen_maps(moments, leaves, shift, caller='repair')
  targets = {
    n: _unit_moments.target(n, moments[n], ends, shares) for n in names
  }
  # All layers are corrected at once. The correction of a layer is final as soon
  # as all layers before it are, so k layers converge in k passes.
  for i in range(passes):
    if i:
      moments = _moments(measure(params), params, 'the result of measure')
    corrections = {
      n: _unit_moments.correction(moments[n], targets[n], shift, epsilon)
      for n in names
    }
    done = [
      _converged(moments[n], targets[n], corrections[n], shift, tolerance)
      for n in names
    ]
    if all(done):
      break
    params = _unit_moments.fold_in(params, moments, corrections)
  return params


def _converged(
  found: types.Moments,
  target: _unit_moments.Target,
  correction: _unit_moments.Correction,
  shift: bool,
  tolerance: float,
) -> bool:
  """Returns whether the correction is within tolerance for all units."""
  close = jnp.abs(correction.gain - 1) <= tolerance
  if shift:
    difference = jnp.abs(target.mean - found.mean)
    close &= difference <= tolerance * target.deviation
  return bool(close.all())


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
