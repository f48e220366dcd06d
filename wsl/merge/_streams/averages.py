"""Averages of models that arrive one after another."""

from collections.abc import Callable
from typing import Any, NamedTuple, TYPE_CHECKING

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _checks, _variance
from wsl.merge._streams import arrivals

if TYPE_CHECKING:
  import optax


class AverageState(NamedTuple):
  """An average of the models so far; ``checkpoint.save_run`` stores it.

  Attributes:
    merged: the average, leaves ``[...]`` in float32 or wider.
    models: t, their number.
    mean: the average before its variance is corrected; None if it is not.
    variance: the mean of the variances of each leaf, ``[]``; None likewise.
  """

  merged: types.Delta
  models: types.Array
  mean: types.Delta | None = None
  variance: types.Tree = None


def running_mean(
  *, correct_variance: bool = False
) -> 'optax.GradientTransformation':
  r"""Averages models one after another, in the memory of one.

  .. math:: \tau \leftarrow \tau + \tfrac1t (\tau_t - \tau)

  Args:
    correct_variance: whether ``state.merged`` has the mean variance of the
      models so far in each leaf, as ``variance_corrected``.

  Returns:
    A transformation, as that of ``opcm``: ``init(base)`` returns an
    ``AverageState``, ``update(tau, state)`` the change of ``state.merged`` and
    the new state. Task vectors of any float dtype are averaged in float32 or
    wider. To average models, pass them as task vectors.

  Raises:
    ValueError: from ``update``, if a task vector does not fit the state.

  Example:
    >>> import jax.numpy as jnp
    >>> stream = running_mean()
    >>> state = stream.init({'w': jnp.zeros(2, jnp.bfloat16)})
    >>> for x in (1.0, 4.0, 1.0):
    ...   _, state = stream.update({'w': jnp.full(2, x, jnp.bfloat16)}, state)
    >>> state.merged['w'].tolist(), state.merged['w'].dtype.name
    ([2.0, 2.0], 'float32')

  Reference:
    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
    Generalization", 2018, arXiv:1803.05407.

  No official code.
  """

  def share(count: types.Array) -> types.Array:
    return 1 / count

  return _average('running_mean', share, correct=correct_variance)


def exponential_mean(
  *, decay: Any, debias: bool = True
) -> 'optax.GradientTransformation':
  r"""Averages models with weights that decay with their age.

  .. math:: \tau \leftarrow \tau + w_t (\tau_t - \tau), \qquad
    w_t = \frac{1 - d}{1 - d^t}

  With ``debias`` model i has the weight :math:`d^{t-i}` over the sum of all
  weights. Without, the first model is the start, and w is 1 - d for others.

  Args:
    decay: d, ``0 <= d < 1``, a number that may be traced.
    debias: whether the weights are normalised.

  Returns:
    A transformation, as that of ``running_mean``. The state is float32 or
    wider: in bfloat16 an average of decay 0.999 would not change.

  Raises:
    ValueError: if ``decay`` is out of range; from ``update``, if a task vector
      does not fit the state.

  Example:
    >>> import jax.numpy as jnp
    >>> stream = exponential_mean(decay=0.5)
    >>> state = stream.init({'w': jnp.zeros(())})
    >>> for x in (1.0, 4.0):
    ...   _, state = stream.update({'w': jnp.asarray(x)}, state)
    >>> float(state.merged['w'])
    3.0

  Reference:
    Polyak and Juditsky, "Acceleration of Stochastic Approximation by
    Averaging", 1992; Kingma and Ba, "Adam: A Method for Stochastic
    Optimization", 2014, arXiv:1412.6980, section 3, for the normalisation.

  No official code.
  """
  tree.check_scalars('exponential_mean', decay=decay)
  meaning = 'decay is the factor of older models'
  _checks.fraction('exponential_mean', 'decay', decay, meaning)
  if not isinstance(decay, jax.core.Tracer) and decay == 1:
    raise ValueError('exponential_mean(decay=1): it has to be less than 1')

  def share(count: types.Array) -> types.Array:
    d = jnp.asarray(decay).astype(count.dtype)
    if debias:
      return (1 - d) / (1 - d**count)
    return jnp.where(count == 1, jnp.ones_like(count), 1 - d)

  return _average('exponential_mean', share)


def _average(
  function: str,
  share: Callable[[types.Array], types.Array],
  *,
  correct: bool = False,
) -> 'optax.GradientTransformation':
  """Returns a stream that moves to each model by a share of the distance.

  Args:
    function: the public function, for messages.
    share: maps the number of models, a float, to the share of the last.
    correct: whether the variance of each leaf is corrected.
  """

  def init(params: types.Params) -> AverageState:
    zeros = arrivals.zeros(function, params)
    count = jnp.zeros((), jnp.int32)
    if not correct:
      return AverageState(zeros, count)
    variance = jax.tree.map(lambda x: jnp.zeros((), x.real.dtype), zeros)
    return AverageState(zeros, count, zeros, variance)

  def update(
    updates: types.Delta,
    state: AverageState,
    params: types.Params | None = None,
  ) -> tuple[types.Delta, AverageState]:
    del params
    new = arrivals.arrived(function, updates, state.merged)
    count = state.models + 1

    def move(x: types.Array, y: types.Array) -> types.Array:
      weight = share(count.astype(x.real.dtype))
      return x + weight.astype(x.dtype) * (y - x)

    if not correct:
      merged = jax.tree.map(move, state.merged, new)
      found = AverageState(merged, count)
    else:
      mean = jax.tree.map(move, state.mean, new)
      own = jax.tree.map(_variance.of_leaf, new)
      variance = jax.tree.map(move, state.variance, own)
      merged = jax.tree.map(_variance.restored, mean, variance)
      found = AverageState(merged, count, mean, variance)
    return jax.tree.map(jnp.subtract, merged, state.merged), found

  return arrivals.transformation(init, update)
