"""Losses of models on a batch of each task."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types

# Maps (params, batch) to the mean loss over the batch.
Loss: TypeAlias = Callable[[types.Params, Any], types.Array]


def stacked(function: str, batches: Any, models: int | None = None) -> Any:
  """Returns the batches of T tasks as arrays ``[T, ...]``.

  Args:
    function: the public function, as the user called it.
    batches: a pytree with a first axis of tasks.
    models: T, or None if any number of tasks is right.

  Raises:
    ValueError: if an array has no such axis, or another length of it.
  """
  named = tree.named(batches)
  if not named:
    raise ValueError(f'{function}: batches has no array, expected [T, ...]')
  for name, x in named.items():
    shape = np.shape(x)
    models = models or (shape[0] if shape else None)
    if not shape or shape[0] != models:
      raise ValueError(
        f"{function}: the batches' '{name}' has shape {shape}, expected "
        f'({models}, ...), one for each task: join batches by tree.stack'
      )
  return jax.tree.map(jnp.asarray, batches)


def loss(
  loss_fn: Loss, base: types.Params, delta: types.Delta, batch: Any
) -> types.Array:
  """Returns the loss of a base with a delta on one batch.

  Raises:
    ValueError: if the loss is no scalar.
  """
  model = deltas_lib.apply(base, delta, check_finite=False)
  found = jnp.asarray(loss_fn(model, batch))
  if found.shape:
    raise ValueError(
      f'loss_fn returned an array of shape {found.shape}, expected a scalar: '
      'take the mean over the batch'
    )
  return found
