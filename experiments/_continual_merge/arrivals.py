"""Merges after every arrival, and their accuracies."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from experiments._continual_merge import settings
from experiments._run import console
from experiments._shared import suite_accuracy, suite_training
from wsl import types

SUM = 'sum'


def measure(
  setting: settings.Setting, name: str, models: suite_training.Models
) -> dict[str, Any]:
  """Merges by one stream in every order.

  Args:
    setting: suite, streams and orders.
    name: of a stream, or ``SUM``.
    models: of all seeds.

  Returns:
    ``test``: accuracies after each arrival, ``[orders][T][S][T]``, by order,
    number of arrivals, seed and task; ``orders``: the tasks by arrival,
    ``[orders][T]``; ``coef``: of the sum, else 1.
  """
  coef = _coef(setting, models) if name == SUM else 1.0
  test = []
  with console.progress(name, len(setting.orders)) as advance:
    for order in setting.orders:
      merges = (
        _sums(models.stack, order)
        if name == SUM
        else _merges(setting.streams[name], models.stack, order)
      )
      found = [_accuracy(setting, models, x, (coef,))[0] for x in merges]
      test.append(np.stack(found))
      advance(f'{100 * test[-1][-1].mean():.1f} %')
  orders = setting.orders.tolist()
  return {'test': np.stack(test).tolist(), 'orders': orders, 'coef': coef}


def _merges(
  stream: Any, stack: types.Deltas, order: np.ndarray
) -> Iterator[types.Delta]:
  """Yields the merge of each seed after every arrival, ``[S, ...]``."""
  first = jax.tree.map(lambda x: x[:, 0], stack)
  state = jax.vmap(stream.init)(first)
  update = jax.jit(
    jax.vmap(
      lambda x, place, state: stream.update(
        jax.tree.map(lambda x: x[place], x), state
      )[1],
      in_axes=(0, None, 0),
    )
  )
  for place in order:
    state = update(stack, place, state)
    yield state.merged


def _sums(stack: types.Deltas, order: np.ndarray) -> Iterator[types.Delta]:
  """Yields the sum of the task vectors after every arrival, ``[S, ...]``."""
  for count in range(1, len(order) + 1):
    arrived = order[:count]
    yield jax.tree.map(lambda x, a=arrived: x[:, a].sum(1), stack)


def _coef(setting: settings.Setting, models: suite_training.Models) -> float:
  """Returns the coefficient of the whole sum that is best on validation."""
  coefs = tuple(setting.suite.config.coefs)
  whole = jax.tree.map(lambda x: x.sum(1), models.stack)
  found = _accuracy(setting, models, whole, coefs, split='validation')
  return float(coefs[int(found.mean((1, 2)).argmax())])


def _accuracy(
  setting: settings.Setting,
  models: suite_training.Models,
  merged: types.Delta,
  coefs: tuple[float, ...],
  split: str = 'test',
) -> np.ndarray:
  """Returns accuracies ``[L, S, T]``."""
  suite = setting.suite
  images = getattr(suite.tasks, split)
  return suite_accuracy.of_all(
    suite, models.base, merged, models.heads, images, coefs
  )
