"""Averages whose variance is corrected to that of the models."""

from typing import Any

import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack


@deltas_lib.on_stacks
def variance_corrected(
  deltas: types.Deltas, *, self_weight: Any = None, target: str = 'others'
) -> types.Delta:
  r"""Averages models and restores the variance of each leaf.

  With a the average, and mean and Var over the entries of a leaf,

  .. math:: \tau = \operatorname{mean} a + (a - \operatorname{mean} a)
    \sqrt{v / \operatorname{Var} a}.

  If ``self_weight`` is None, a is the mean of all models, and v the mean of
  their variances. Otherwise the first model is the own one, of weight c, the
  others are received, and

  .. math:: a = c\,\tau_1 + \frac{1 - c}{T - 1} \sum_{t > 1} \tau_t, \qquad
    \bar v = \frac{1}{T - 1} \sum_{t > 1} \operatorname{Var} \tau_t,

  .. math:: v = \bar v \quad\text{or}\quad
    c \operatorname{Var} \tau_1 + (1 - c) \bar v \quad\text{or}\quad
    \operatorname{Var} \tau_1.

  The average of N uncorrelated models has 1/N of their variance: its deviations
  are multiplied by :math:`\sqrt N`.

  Args:
    deltas: stacked models or task vectors, every leaf ``[T, ...]``. The paper
      averages models: stack them by ``tree.stack``. Variances of task vectors
      are those of the changes.
    self_weight: c, 0 .. 1, a number that may be traced, or None.
    target: v, in the order above: ``'others'``, ``'conservative'`` or
      ``'self'`` (FollowOthers, FollowConservative and FollowSelf of the
      official code).

  Returns:
    The merged model or task vector, every leaf ``[...]``. Averages whose
    variance is zero up to rounding, as that of one entry, are not scaled.

  Raises:
    ValueError: if ``self_weight`` is out of range, the target is unknown, or
      there is no other model where one is needed.

  Example:
    >>> import jax.numpy as jnp
    >>> models = [[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
    >>> models = {'w': jnp.asarray(models)}
    >>> [round(x, 3) for x in variance_corrected(models)['w'].tolist()]
    [0.5, 1.207, -0.207, 0.5]

  Reference:
    Tian et al., "Vanishing Variance Problem in Fully Decentralized
    Neural-Network Systems", 2024, arXiv:2404.04616.

  Differs from the official code in three cases. That code adds 1e-4 to both
  variances, which exceeds the variance of a layer of more than 10^4 inputs, and
  undoes most of the correction there. It overwrites the own model before it
  takes that model's variance, so its FollowSelf does nothing, and its
  FollowConservative takes Var a for :math:`\operatorname{Var} \tau_1`. And it
  has no case without an own model.
  """
  number = _stack.count('variance_corrected', deltas)
  _checks.choose('variance_corrected: target', target, _TARGET)
  if self_weight is None:
    if target != 'others':
      raise ValueError(
        f'variance_corrected(target={target!r}): there is no own model: give '
        'self_weight'
      )
    return tree.map(_merge, deltas, self_weight=None, target=target)
  if number < 2:
    raise ValueError(
      'variance_corrected: one model has no others: stack the own one, then '
      'those received'
    )
  tree.check_scalars('variance_corrected', self_weight=self_weight)
  meaning = 'self_weight is the share of the first model'
  _checks.fraction('variance_corrected', 'self_weight', self_weight, meaning)
  return tree.map(_merge, deltas, self_weight=self_weight, target=target)


_TARGET = {
  'others': lambda own, others, c: others,
  'conservative': lambda own, others, c: c * own + (1 - c) * others,
  'self': lambda own, others, c: own,
}


def _moments(x: types.Array) -> tuple[types.Array, types.Array]:
  """Returns means and unbiased variances over the entries, ``[S]``."""
  size = x[0].size
  mean = tree.sum_entries(x) / max(size, 1)
  centred = x - _stack.expand_rank(mean, x)
  return mean, tree.sum_entries(tree.square(centred)) / max(size - 1, 1)


def _merge(x: types.Array, *, self_weight: Any, target: str) -> types.Array:
  """Averages one leaf ``[T, ...]`` and scales the deviations from its mean."""
  wide = tree.wide(x)
  real = wide.real.dtype
  own = self_weight is not None
  c = jnp.asarray(self_weight if own else 0.0).astype(real)
  others = wide[1:] if own else wide
  variances = _moments(wide)[1]
  v = jnp.sum(variances[len(wide) - len(others) :]) / len(others)
  v = _TARGET[target](variances[0], v, c)
  average = _stack.sum_models(others) / len(others)
  if own:
    share, rest = c.astype(wide.dtype), (1 - c).astype(wide.dtype)
    average = share * wide[0] + rest * average
  return restored(average, v, jnp.max(variances)).astype(x.dtype)


def of_leaf(x: types.Array) -> types.Array:
  """Returns the unbiased variance of the entries of one leaf, ``[]``."""
  return _moments(tree.wide(x)[None])[1][0]


def restored(
  average: types.Array, v: types.Array, largest: types.Array | None = None
) -> types.Array:
  """Scales the deviations of an average from its mean to the variance v.

  Args:
    average: one leaf ``[...]``, in a wide dtype.
    v: the variance that the result has, ``[]``.
    largest: the largest variance of the models, which bounds the rounding
      errors of the average; v by default.
  """
  mean, variance = (moment[0] for moment in _moments(average[None]))
  # A sum that cancels up to rounding has no direction to scale.
  eps = jnp.finfo(average.dtype).eps
  varies = variance > (16 * eps) ** 2 * (v if largest is None else largest)
  ratio = jnp.where(varies, v, 1) / jnp.where(varies, variance, 1)
  # Square roots of 0 have no derivative.
  factor = jnp.where(ratio > 0, jnp.sqrt(jnp.where(ratio > 0, ratio, 1)), 0)
  return mean + (average - mean) * factor.astype(average.dtype)
