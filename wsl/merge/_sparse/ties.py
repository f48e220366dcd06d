"""TIES-Merging: trim, elect signs, average the agreeing entries."""

from typing import Any

from wsl import deltas as deltas_lib
from wsl import types
from wsl.merge import _checks, _linear, _stack
from wsl.merge._sparse import elect, trim

_REDUCERS = {
  'mean': elect.mean_nonzero,
  'sum': _linear.sum,
  'max': elect.strongest,
}


@deltas_lib.on_stacks
def ties(
  deltas: types.Deltas,
  *,
  density: Any,
  scope: str = 'global',
  reduce: str = 'mean',
  dialect: str = 'paper',
  weights: Any = None,
  vote: str = 'sum',
) -> types.Delta:
  r"""Merges task vectors after removing redundant and conflicting entries.

  .. math:: \tau_p = \frac{\sum_{t \in A_p} w_t \hat\tau_{t,p}}
    {\sum_{t \in A_p} w_t}, \qquad
    A_p = \{t : w_t \hat\tau_{t,p} \gamma_p > 0\}, \qquad
    \gamma_p = \operatorname{sgn} \sum_t w_t \hat\tau_{t,p}

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: fraction of entries kept in each task vector,
      ``0 < density <= 1``: a number, ``[T]``, or in scope ``'leaf'`` one for
      each leaf, as in ``trim``; the paper's default is 0.2.
    scope: ``'global'`` ranks over the whole model (the paper), ``'leaf'``
      within each leaf (mergekit). The sets kept differ by tens of percent.
    reduce: how agreeing entries combine: ``'mean'``, ``'sum'`` or ``'max'``.
    dialect: ``'paper'`` keeps ``floor(density * d)`` entries; ``'official'``
      (the authors' code) keeps one more, and where a sum is zero and the signs
      of the model balance it elects the negative sign (zero for ``'max'``);
      ``'mergekit'`` elects the positive sign for every zero sum (its own scope
      is ``'leaf'``); ``'peft'`` does so too, elects without weights, and
      divides by the number of agreeing entries, not by their weights.
    weights: w, one number for each model; 1 by default, the paper's. They
      weigh the election and the mean, as in mergekit. Where weights of both
      signs cancel in the mean, their sum is replaced by 1.
    vote: how signs are elected, as in ``elect_sign``.

  Returns:
    The merged task vector, every leaf ``[...]``; scale it in ``deltas.apply``.

  Raises:
    ValueError: if ``density`` is out of range, an option is unknown, a leaf is
      complex, there is not one weight for each model, or ``'max'`` is weighted.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[4.0, -1.0, 0.2], [2.0, 3.0, 0.1]])}
    >>> ties(deltas, density=0.7)['w'].tolist()
    [3.0, 3.0, 0.0]

  Reference:
    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models",
    2023, arXiv:2306.01708.

  Differs from the official code in the number of kept entries, see ``dialect``.
  """
  _stack.count('ties', deltas)
  elect.check_signs('ties', deltas)
  reducer = _checks.choose('ties: reduce', reduce, _REDUCERS)
  # The official max multiplies the largest magnitude by the elected sign, which
  # is zero where the paper's is.
  signed = (dialect, reduce) == ('official', 'max')
  weighted = {} if weights is None else {'weights': weights}
  if weighted and reduce == 'max':
    raise ValueError("ties(reduce='max'): has no weights: leave weights out")

  def steps(tau: types.Deltas) -> types.Delta:
    trimmed = trim.keep_largest(
      'ties', tau, density=density, scope=scope, dialect=dialect
    )
    votes = {'dialect': 'paper' if signed else dialect, 'vote': vote}
    if dialect == 'peft' and weighted:
      elected = elect.elect_sign(trimmed, **votes)
      return reducer(_linear.weigh('ties', elected, weights))
    elected = elect.elect_sign(trimmed, **votes, **weighted)
    return reducer(elected, **weighted)

  return _stack.fuse(deltas, steps)
