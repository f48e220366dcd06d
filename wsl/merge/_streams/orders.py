"""Streams over a stack of models, in one order or in many."""

from typing import Any, NamedTuple, TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _stack

if TYPE_CHECKING:
  import optax


class OrderSensitivity(NamedTuple):
  """Merges of the same models in several orders.

  Attributes:
    deviation: the root mean square distance of the merges to their mean, over
      the norm of the mean; 0 if the order does not matter.
    merged: the merge of each order, leaves ``[S, ...]``.
    orders: the positions of the models, ``[S, T]``.
  """

  deviation: types.Array
  merged: types.Deltas
  orders: types.Array


@deltas_lib.on_stacks
def fold(
  stream: 'optax.GradientTransformation',
  deltas: types.Deltas,
  *,
  order: types.ArrayLike | None = None,
) -> types.Delta:
  r"""Merges a stack of task vectors by a stream, one after another.

  Args:
    stream: a stream such as ``opcm(alpha=0.5)`` or ``running_mean()``.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    order: the positions of the models in the order of arrival, ``[T]`` or
      fewer; all from first to last by default.

  Returns:
    The merged task vector, every leaf ``[...]`` in the dtype of ``deltas``.

  Raises:
    ValueError: as the stream, or if ``deltas`` is no stack, or ``order`` holds
      no positions.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import merge
    >>> deltas = {'w': jnp.asarray([[1.0], [2.0], [6.0]])}
    >>> fold(merge.running_mean(), deltas)['w'].tolist()
    [3.0]
    >>> fold(merge.running_mean(), deltas, order=[2, 0])['w'].tolist()
    [3.5]
  """
  models = _stack.count('fold', deltas)
  deltas = _stack.arrays('fold', deltas)
  places = _places(order, models)
  start = stream.init(jax.tree.map(lambda x: x[0], deltas))

  def step(state: types.Tree, place: types.Array) -> tuple[types.Tree, None]:
    one = jax.tree.map(lambda x: x[place], deltas)
    return stream.update(one, state)[1], None

  if tree.is_traced([places, deltas]):
    last, _ = jax.lax.scan(step, start, places)
  else:
    # A scan would be compiled again for each new stream.
    last = start
    for place in np.asarray(places):
      last, _ = step(last, place)
  return jax.tree.map(lambda y, x: y.astype(x.dtype), last.merged, deltas)


@deltas_lib.on_stacks
def order_sensitivity(
  stream: 'optax.GradientTransformation',
  deltas: types.Deltas,
  *,
  key: types.PRNGKey,
  samples: int = 10,
) -> OrderSensitivity:
  r"""Measures how the merge of a stream depends on the order of the models.

  .. math:: \sqrt{\tfrac1S \sum_s \|\tau_s - \bar\tau\|^2} \Big/ \|\bar\tau\|

  Args:
    stream: as in ``fold``.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    key: draws the orders.
    samples: S, the number of orders, ``>= 1``; the authors of OPCM take 10.

  Returns:
    The deviation, the merges and the orders.

  Raises:
    ValueError: if ``samples`` is less than 1, or as ``fold``.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import merge
    >>> deltas = {'w': jnp.asarray([[1.0], [2.0], [6.0]])}
    >>> found = order_sensitivity(merge.exponential_mean(decay=0.5), deltas,
    ...                           key=jax.random.key(0), samples=4)
    >>> found.merged['w'].shape, bool(found.deviation > 0)
    ((4, 1), True)

  Reference:
    Tang et al., "Merging Models on the Fly Without Retraining: A Sequential
    Approach to Scalable Continual Model Merging", 2025, arXiv:2501.09522.
  """
  models = _stack.count('order_sensitivity', deltas)
  whole = isinstance(samples, (int, np.integer))
  if not whole or isinstance(samples, bool) or samples < 1:
    raise ValueError(
      f'order_sensitivity(samples={samples}): expected an integer >= 1'
    )
  deltas = _stack.arrays('order_sensitivity', deltas)
  draw = lambda key: jax.random.permutation(key, models)
  orders = jax.vmap(draw)(jax.random.split(key, samples))
  merged = tree.stack([fold(stream, deltas, order=order) for order in orders])
  mean = jax.tree.map(lambda x: jnp.mean(tree.wide(x), 0), merged)
  away = jax.tree.map(lambda x, y: tree.wide(x) - y[None], merged, mean)
  length = jnp.asarray(tree.norm(mean)) * samples**0.5
  deviation = tree.safe_divide(jnp.asarray(tree.norm(away)), length)
  return OrderSensitivity(deviation, merged, orders)


def _places(order: types.ArrayLike | None, models: int) -> types.Array:
  """Returns positions of models; JAX would clamp those out of range."""
  if order is None:
    return jnp.arange(models)
  known = not tree.is_traced(order)
  places: Any = np.asarray(order) if known else jnp.asarray(order)
  whole = np.issubdtype(places.dtype, np.integer) and places.ndim == 1
  if not whole or not places.size:
    raise ValueError(
      f'fold: order is of {places.dtype} and shape {places.shape}, expected '
      f'positions [T] of models, integers 0 .. {models - 1}'
    )
  if known and not np.all((places >= 0) & (places < models)):
    raise ValueError(
      f'fold: order has positions {places.min()} .. {places.max()}, expected '
      f'0 .. {models - 1}, one of each model that arrives'
    )
  return jnp.asarray(places)
