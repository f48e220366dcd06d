"""Metrics-weighted averaging: checkpoints weighed by losses or steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _checks, _linear, _stack


def metric_weighted(
  deltas: types.Deltas,
  *,
  metrics: Any,
  penalty: Any,
  weighting: str = 'loss',
) -> types.Delta:
  r"""Averages checkpoints by weights computed from their losses or steps.

  .. math:: \tau = \sum_t w_t \tau_t, \qquad \sum_t w_t = 1, \qquad
    w_t \propto L_t^{-p}, \quad w_t \propto S_t^{p} \quad\text{or}\quad
    w_t \propto \exp\!\Big(\!-p \frac{L_t}{\operatorname{mean}_s L_s}\Big)

  It is a reconstruction: the paper's abstract says that lower losses and later
  steps weigh more, by one penalty factor whatever T, which these do; the
  published formula may differ.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]`` or in factors, one for
      each checkpoint. The products of factors are averaged, as by ``sum``.
    metrics: L or S, ``[T]``, positive: smoothed losses, or numbers of steps.
    penalty: ``p >= 0``, a number that may be traced. At 0 the weights are
      equal; for large p the best checkpoint has them all.
    weighting: the weights, in the order above: ``'loss'``, ``'step'`` or
      ``'exponential'`` (of losses).

  Returns:
    The merged task vector, every leaf ``[...]``.

  Raises:
    ValueError: if there is not one positive metric for each checkpoint, the
      penalty is negative, or the weighting is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0], [4.0]])}
    >>> metric_weighted(deltas, metrics=[2.0, 1.0], penalty=1.0)['w'].tolist()
    [3.0]

  Reference:
    Wang et al., "Parameter-Efficient Checkpoint Merging via Metrics-Weighted
    Averaging", 2025, arXiv:2504.18580.

  Differs from the official code, of which none is known, in what the abstract
  leaves open: the form of the weights.
  """
  models = _stack.count('metric_weighted', deltas)
  logits = _checks.choose('metric_weighted: weighting', weighting, _LOGITS)
  values = _metrics(metrics, models)
  tree.check_scalars('metric_weighted', penalty=penalty)
  _checks.at_least_zero('metric_weighted', 'penalty', penalty)
  traced = any(isinstance(v, jax.Array) for v in (values, penalty))
  xp: Any = jnp if traced else np
  scores = xp.asarray(penalty) * logits(xp, values)
  # Relative to the greatest, so that no power overflows.
  weights = xp.exp(scores - scores.max())
  return _linear.weighted_mean(deltas, weights / weights.sum())


_LOGITS = {
  'loss': lambda xp, losses: -xp.log(losses),
  'step': lambda xp, steps: xp.log(steps),
  'exponential': lambda xp, losses: -losses / losses.mean(),
}


def _metrics(metrics: Any, models: int) -> Any:
  """Returns metrics ``[T]``: on the host in float64, or traced."""
  label = 'metric_weighted: metrics'
  values = _checks.numbers(label, metrics)
  if not isinstance(values, jax.core.Tracer):
    values = np.asarray(values, np.float64)
    if not np.all((values > 0) & np.isfinite(values)):
      raise ValueError(
        f'metric_weighted(metrics={metrics}): expected finite numbers > 0'
      )
  if values.shape != (models,):
    raise ValueError(
      f'{label} has shape {values.shape}, expected ({models},), one for each '
      'checkpoint'
    )
  return values if isinstance(values, np.ndarray) else tree.wide(values)
