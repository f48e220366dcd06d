"""Many runs of one training, some of them side by side."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._run import console
from wsl import train, types

SEGMENTS = 10  # of a run, between reports


def advance_all(
  label: str,
  loss: Callable[..., types.Array],
  starts: types.Params,
  keys: types.PRNGKey,
  shared: types.Tree,
  pick: Callable[[Any, types.Array], tuple[types.Tree, types.Tree]],
  *,
  steps: int,
  batch_size: int,
  rate: float,
  at_once: int,
) -> types.Params:
  """Trains R runs, ``at_once`` of them side by side, and shows how they fare.

  Args:
    label: the stage.
    loss: maps (bound, params, batch, key) to a scalar.
    starts: what is trained, leaves ``[R, ...]``.
    keys: of each run, ``[R]``.
    shared: arrays that all runs draw on.
    pick: maps (shared, number of a run) to what is bound in that run's loss,
      and its examples.
    steps: about how many; rounded up to whole segments.
    batch_size: examples in a batch.
    rate: peak learning rate.
    at_once: runs side by side by ``vmap``; the others wait.

  Returns:
    The trained parameters, leaves ``[R, ...]``.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  segment = -(-steps // SEGMENTS)
  optimizer = train.adamw(rate, steps=segment * SEGMENTS)

  @jax.jit
  def advance_some(
    states: train.State, keys: types.PRNGKey, shared: types.Tree
  ) -> tuple[train.State, types.Array]:
    def advance(operands: Any) -> tuple[train.State, types.Array]:
      run, state, key = operands
      bound, examples = pick(shared, run)
      return train.advance(
        jax.tree_util.Partial(loss, bound),
        state,
        examples,
        optimizer=optimizer,
        steps=segment,
        batch_size=batch_size,
        key=key,
      )

    operands = (jnp.arange(len(keys)), states, keys)
    return jax.lax.map(advance, operands, batch_size=at_once)

  shared = jax.tree.map(jnp.asarray, shared)
  start = functools.partial(train.start, optimizer=optimizer)
  states = jax.jit(jax.vmap(start))(starts)
  with console.progress(label, SEGMENTS) as tick:
    for part in range(1, SEGMENTS + 1):
      states, losses = advance_some(states, keys, shared)
      now = float(jnp.mean(losses))
      if not np.isfinite(now):
        raise FloatingPointError(
          f'{label}: the loss is {now} before step {segment * part}: take a '
          f'learning rate below {rate}'
        )
      tick(f'loss {now:.3f}')
  return states.params
