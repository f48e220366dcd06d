"""TIES-Merging: trim, elect a sign, average what agrees."""

from typing import Any

from wsl import tree, types
from wsl.merge import _elect, _linear, _stack, _trim

_REDUCERS = {
  'mean': _elect.mean_nonzero,
  'sum': _linear.sum,
  'max': _elect.strongest,
}


def ties(
  deltas: types.Deltas,
  *,
  density: Any,
  scope: str = 'global',
  reduce: str = 'mean',
  dialect: str = 'paper',
) -> types.Delta:
  r"""Merges task vectors after removing redundant and conflicting entries.

  .. math:: \tau_p = \frac{1}{|A_p|} \sum_{t \in A_p} \hat\tau_{t,p}, \qquad
    A_p = \{t : \hat\tau_{t,p} \gamma_p > 0\}, \qquad
    \gamma_p = \operatorname{sgn} \sum_t \hat\tau_{t,p}

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: fraction of entries kept in each task vector,
      ``0 < density <= 1``, a number or ``[T]``; the paper's default is 0.2.
    scope: ``'global'`` ranks over the whole model (the paper), ``'leaf'``
      within each leaf (mergekit). They differ by tens of percent.
    reduce: how agreeing entries combine: ``'mean'``, ``'sum'`` or ``'max'``.
    dialect: ``'paper'`` keeps ``floor(density * d)`` entries; ``'official'`` is
      the authors' code, which keeps one more and gives a sum that cancels
      in a model of balanced signs the negative sign (zero under ``'max'``);
      ``'mergekit'`` gives every sum that cancels the positive sign (its own
      scope is ``'leaf'``).

  Returns:
    The merged task vector, every leaf ``[...]``; scale it in ``deltas.apply``.

  Raises:
    ValueError: if ``density`` is out of range, or an option is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[4.0, -1.0, 0.2], [2.0, 3.0, 0.1]])}
    >>> ties(deltas, density=0.7)['w'].tolist()
    [3.0, 3.0, 0.0]

  Reference:
    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models",
    2023, arXiv:2306.01708.

  Differs from the official code in the count of kept entries, see ``dialect``.
  """
  reducer = _stack.one_of('ties: reduce', reduce, _REDUCERS)
  tau = tree.defer(deltas)  # so that no step leaves a stack behind
  trimmed = _trim.trim(tau, density=density, scope=scope, dialect=dialect)
  # That code multiplies the largest magnitude by the sign that it elected.
  signed = (dialect, reduce) == ('official', 'max')
  elected = _elect.elect_sign(trimmed, dialect='paper' if signed else dialect)
  merged = reducer(elected)
  return merged if tree.on_demand(deltas) else tree.read(merged)
