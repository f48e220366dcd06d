"""Sign election and the mean of agreeing entries, two steps of TIES."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack

_ENTRIES = tree.Entries(lead=1, neutral=0.0)
_VOTES = ('sum', 'count', 'share', 'largest')


@deltas_lib.on_stacks
def elect_sign(
  deltas: types.Deltas,
  *,
  dialect: str = 'paper',
  weights: Any = None,
  vote: str = 'sum',
) -> types.Deltas:
  r"""Zeroes the entries whose sign differs from the sign of their sum.

  .. math:: \gamma_p = \operatorname{sgn} \sum_t w_t \tau_{t,p}, \qquad
    \tau_{t,p} \mapsto \tau_{t,p} \, 1[w_t \tau_{t,p} \gamma_p > 0]

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    dialect: the sign of a sum that is exactly zero. ``'paper'``: the majority
      sign of the model, :math:`\operatorname{sgn} \sum_p \gamma_p`, or zero if
      the signs balance; ``'official'`` (the authors' code): the same, but
      negative if they balance; ``'mergekit'`` and ``'peft'``: positive.
    weights: w, one number for each model; 1 by default, as in the paper.
    vote: how an entry votes for its sign: ``'sum'`` by its magnitude (the
      formula); ``'count'`` once (PEFT's ``frequency``); ``'share'`` by its
      share of the squared norm of its model, :math:`\tau_{t,p}^2 /
      \|\tau_t\|^2`; or ``'largest'``: the model with the largest such share
      decides alone. The last two are ``normmass`` and ``normfrac`` of the
      authors' code.

  Returns:
    The agreeing entries, every leaf ``[T, ...]``.

  Raises:
    ValueError: if an option is unknown, there is not one weight for each
      model, or a leaf is complex: complex numbers have no sign.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, -4.0], [-3.0, -2.0]])}
    >>> elect_sign(deltas)['w'].tolist()
    [[0.0, -4.0], [-3.0, -2.0]]

  Reference:
    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models",
    2023, arXiv:2306.01708, section 4.

  Differs from the official code where two models have the largest share: that
  code takes the first, here they cancel if their signs differ.
  """
  models = _stack.count('elect_sign', deltas)
  check_signs('elect_sign', deltas)
  hyper: dict[str, Any] = {}
  if weights is not None:
    hyper = {'weights': _checks.weights('elect_sign', weights, models)}
  _checks.choose('elect_sign: vote', vote, dict.fromkeys(_VOTES))
  if vote != 'sum':
    hyper['vote'] = vote
  if vote in ('share', 'largest'):
    squares = lambda: tree.total(_squares, deltas, entries=_ENTRIES)
    hyper['norms'] = tree.statistic(
      squares, deltas, shape=(models,), dtype=np.float64
    )
  balance = lambda: tree.total(_votes, deltas, entries=_ENTRIES, **hyper)
  sign = {
    'paper': lambda: jnp.sign(balance()),
    'official': lambda: jnp.where(balance() > 0, 1, -1),
    'mergekit': None,
    'peft': None,
  }
  compute = _checks.choose('elect_sign: dialect', dialect, sign)
  cancelled: Any = 1
  if compute is not None:
    cancelled = tree.statistic(compute, deltas, shape=(), dtype=np.int32)
  return tree.map(_agreeing, deltas, cancelled=cancelled, **hyper)


@deltas_lib.on_stacks
def mean_nonzero(deltas: types.Deltas, *, weights: Any = None) -> types.Delta:
  r"""Averages the nonzero entries over the models: the disjoint mean of TIES.

  .. math:: \tau_p = \frac{\sum_t w_t \tau_{t,p}}
    {\sum_t w_t \, 1[\tau_{t,p} \ne 0]}

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    weights: w, one number for each model; 1 by default.

  Returns:
    The merged task vector, every leaf ``[...]``. A denominator that is zero (of
    no entry, or of weights that cancel) is replaced by 1.

  Raises:
    ValueError: if there is not one weight for each model.

  Example:
    >>> import jax.numpy as jnp
    >>> mean_nonzero({'w': jnp.asarray([[1.0, 0.0], [3.0, 0.0]])})['w'].tolist()
    [2.0, 0.0]

  Reference:
    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models",
    2023, arXiv:2306.01708, section 4.

  Equals the official code, which has no weights.
  """
  models = _stack.count('mean_nonzero', deltas)
  if weights is None:
    return tree.map(_mean_nonzero, deltas)
  weights = _checks.weights('mean_nonzero', weights, models)
  return tree.map(_weighted_mean_nonzero, deltas, weights=weights)


def check_signs(function: str, deltas: types.Deltas) -> None:
  """Checks that all leaves are real, since complex numbers have no sign."""
  tree.check_real(
    function, deltas, 'complex numbers have no sign, merge by sum or mean'
  )


def strongest(deltas: types.Deltas) -> types.Delta:
  """Takes the entry of largest magnitude; all entries must share a sign."""
  return tree.map(_strongest, deltas)


def signs(x: types.Array) -> types.Array:
  """Returns the sign of the sum over models, ``[T, ...] -> [...]``."""
  return jnp.sign(_stack.sum_models(_stack.map_models(tree.wide, x)))


def _squares(x: types.Array) -> types.Array:
  """Sums the squares of the entries of each model, ``[T]``."""
  return tree.sum_entries(tree.square(tree.wide(x)))


def _ballots(
  x: types.Array,
  weights: types.Array | None,
  norms: types.Array | None,
  vote: str,
) -> types.Array:
  """Returns what each entry adds to the election, with its sign."""
  if vote == 'count':
    x = jnp.sign(x)
  if norms is not None:
    wide = tree.wide(x)
    norms = _stack.expand_rank(norms.astype(wide.dtype), wide)
    share = tree.safe_divide(wide**2, jnp.broadcast_to(norms, wide.shape))
    if vote == 'largest':
      most = _stack.max_models(share)
      share = jnp.where(share == most[None], share, 0)
    x = jnp.sign(wide) * share
  return x if weights is None else _stack.weigh(x, weights)


def _votes(
  x: types.Array,
  *,
  weights: types.Array | None = None,
  norms: types.Array | None = None,
  vote: str = 'sum',
) -> types.Array:
  """Sums the elected signs of a leaf; over leaves, it is the majority."""
  ballots = _ballots(x, weights, norms, vote)
  return tree.sum_entries(signs(ballots).astype(np.int32)[None])[0]


def _agreeing(
  x: types.Array,
  *,
  cancelled: Any,
  weights: types.Array | None = None,
  norms: types.Array | None = None,
  vote: str = 'sum',
) -> types.Array:
  """Zeroes the entries that oppose the elected sign.

  The sign is that of the sum, so the side with the larger total magnitude wins,
  not the side with more models. ``cancelled`` replaces the sign of zero sums.
  """
  weighted = x if weights is None else _stack.weigh(x, weights)
  sign = signs(_ballots(x, weights, norms, vote))
  sign = jnp.where(sign == 0, jnp.asarray(cancelled).astype(sign.dtype), sign)
  agrees = lambda y: tree.wide(y) * sign > 0
  return _stack.map_models(
    lambda x, y: jnp.where(agrees(y), x, jnp.zeros_like(x)), x, weighted
  )


def _mean_nonzero(x: types.Array) -> types.Array:
  """Divides the sum over models by the number of nonzero entries."""
  total = _stack.sum_models(_stack.map_models(tree.wide, x))
  nonzero = lambda x: (x != 0).astype(total.dtype)
  count = _stack.sum_models(_stack.map_models(nonzero, x))
  return (total / jnp.maximum(count, 1)).astype(x.dtype)


def _weighted_mean_nonzero(
  x: types.Array, *, weights: types.Array
) -> types.Array:
  """Divides the weighted sum by the weights of the nonzero entries."""
  total = _stack.sum_models(_stack.weigh(x, weights))
  nonzero = _stack.map_models(lambda x: (x != 0).astype(total.dtype), x)
  share = _stack.sum_models(_stack.weigh(nonzero, weights))
  return (total / jnp.where(share == 0, 1, share)).astype(x.dtype)


def _strongest(x: types.Array) -> types.Array:
  """Returns the largest magnitude over models, with the sign of the sum."""
  magnitude = _stack.max_models(_stack.map_models(jnp.abs, x))
  return (signs(x) * tree.wide(magnitude)).astype(x.dtype)
