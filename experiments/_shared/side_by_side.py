"""Many runs of one training: R runs are the first axis of every leaf."""

from collections.abc import Callable
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._run import console
from experiments._shared import on_mesh
from wsl import train, types

SEGMENTS = 10  # of a run, one compiled call each


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
  at_once: int | None,
  optimizer: Callable[..., optax.GradientTransformation] = train.adamw,
  exact: bool = False,
  mesh: jax.sharding.Mesh | None = None,
) -> types.Params:
  """Trains R runs in segments; shows the mean loss after each.

  On a mesh, runs are mapped over its candidates, and each is trained in one
  call; parameters are sharded over the other axes. The results are the same to
  rounding.

  Args:
    label: of the progress line.
    loss: maps (bound, params, batch, key) to a scalar.
    starts: initial parameters, leaves ``[R, ...]``.
    keys: one for each run, ``[R]``.
    shared: arrays that the runs share.
    pick: maps (shared, index of a run) to that run's ``bound`` and examples.
    steps: rounded up to ``SEGMENTS`` equal segments unless ``exact``.
    batch_size: examples in a batch.
    rate: peak learning rate.
    at_once: how many runs ``vmap`` trains side by side. None trains one after
      the other without ``vmap``, which would compute both branches of a
      conditional.
    optimizer: maps (rate, ``steps``) to the optimizer.
    exact: whether to take exactly ``steps`` steps, in as many of 1, 2, 5 or 10
      equal segments as divide them.
    mesh: of the run, or None.

  Returns:
    The trained parameters, leaves ``[R, ...]``.

  Raises:
    FloatingPointError: if the mean loss of a segment is not finite.
  """
  segments = math.gcd(steps, SEGMENTS) if exact else SEGMENTS
  segment = rounded(steps, segments) // segments
  if mesh is not None:
    params, losses = on_mesh.advance_all(
      label,
      loss,
      starts,
      keys,
      shared,
      pick,
      steps=segment * segments,
      batch_size=batch_size,
      at_once=at_once,
      optimizer=optimizer(rate, steps=segment * segments),
      mesh=mesh,
    )
    _check_finite(label, losses, segment * segments, rate)
    return params
  start, advance_some = _programs(
    loss,
    pick,
    optimizer,
    rate=rate,
    segment=segment,
    segments=segments,
    batch_size=batch_size,
    at_once=at_once,
  )
  shared = jax.tree.map(jnp.asarray, shared)
  states = start(starts)
  with console.progress(label, segments) as tick:
    for part in range(1, segments + 1):
      states, losses = advance_some(states, keys, shared)
      now = _check_finite(label, losses, segment * part, rate)
      tick(f'loss {now:.4f}')
  return states.params


def rounded(steps: int, segments: int = SEGMENTS) -> int:
  """Returns the next multiple of the number of segments."""
  return -(-steps // segments) * segments


def _check_finite(
  label: str, losses: types.Array, step: int, rate: float
) -> float:
  """Returns the mean loss; raises an error if a training has diverged."""
  now = float(jnp.mean(losses))
  if not np.isfinite(now):
    raise FloatingPointError(
      f'{label}: the loss is {now} before step {step}: choose a learning rate '
      f'below {rate}'
    )
  return now


# Trainings that differ in their arrays alone share a program.
@functools.lru_cache(maxsize=8)
def _programs(
  loss: Callable[..., types.Array],
  pick: Callable[[Any, types.Array], tuple[types.Tree, types.Tree]],
  optimizer: Callable[..., optax.GradientTransformation],
  *,
  rate: float,
  segment: int,
  segments: int,
  batch_size: int,
  at_once: int | None,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Returns the compiled start of R runs, and a segment of their training."""
  transform = optimizer(rate, steps=segment * segments)

  # Each run selects its examples by index inside the program, so shared arrays
  # are not copied R times.
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
        optimizer=transform,
        steps=segment,
        batch_size=batch_size,
        key=key,
      )

    operands = (jnp.arange(len(keys)), states, keys)
    return jax.lax.map(advance, operands, batch_size=at_once)

  start = functools.partial(train.start, optimizer=transform)
  return jax.jit(jax.vmap(start)), advance_some


def keys(seed: Any, stage: int, count: int) -> types.PRNGKey:
  """Returns independent keys ``[count]`` for one stage of an experiment."""
  key = jax.random.fold_in(jax.random.key(seed), stage)
  return jax.random.split(key, count)


def pick(stack: types.Tree, *place: Any) -> types.Tree:
  """Returns one tree of a stack, leaves ``x[place]``."""
  return jax.tree.map(lambda x: x[place], stack)


def fold(stack: types.Tree, *shape: int) -> types.Tree:
  """Reshapes the first axis of every leaf, to ``[*shape, ...]``."""
  return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), stack)


def flat(stack: types.Tree) -> types.Tree:
  """Joins the first two axes of every leaf."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), stack)
