"""Trainings of any length and peak rate, by one program for each shape."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._depth_surgery import settings
from experiments._run import console
from experiments._shared import side_by_side
from wsl import train, types

SEGMENT = 10  # steps of one compiled call
WARMUP = 0.1  # of the steps


class Pace(NamedTuple):
  """The state of a schedule: warm-up to a peak, and cosine decay to zero."""

  step: types.Array
  peak: types.Array
  steps: types.Array


def advance(
  setting: settings.Setting,
  label: str,
  starts: Any,
  stage: int,
  *,
  steps: int,
  rate: float,
) -> Any:
  """Trains R networks on all domains by AdamW.

  Args:
    setting: texts and networks.
    label: of the progress line.
    starts: parameters ``[R, ...]``, of parts or ``surgery.Tied``.
    stage: of the experiment, which chooses the batches.
    steps: a multiple of ``SEGMENT``.
    rate: the peak learning rate.

  Returns:
    The trained parameters, ``[R, ...]``.

  Raises:
    FloatingPointError: if the loss is not finite.
  """
  config = setting.config
  starts = jax.tree.map(lambda x: jnp.asarray(x).astype(x.dtype), starts)
  count = len(jax.tree.leaves(starts)[0])
  keys = side_by_side.keys(config.seed, stage, count)
  states = _start(starts)
  *before, pace = states.opt_state
  pace = pace._replace(
    peak=jnp.full(count, rate, jnp.float32),
    steps=jnp.full(count, steps, jnp.float32),
  )
  states = states._replace(opt_state=(*before, pace))
  windows = jnp.asarray(setting.corpus.train)
  rows = jnp.asarray(setting.corpus.rows.reshape(-1))
  loss = settings.loss_fn(setting.parts)
  with console.progress(label, steps // SEGMENT) as tick:
    for _ in range(steps // SEGMENT):
      states, losses = _advance(
        loss, config.batch_size, states, keys, windows, rows
      )
      now = float(jnp.mean(losses))
      if not np.isfinite(now):
        raise FloatingPointError(
          f'{label}: the loss is {now}: choose a rate below {rate}'
        )
      tick(f'loss {now:.4f}')
  return states.params


def rounded(steps: float) -> int:
  """Returns the nearest number of whole segments, one at least."""
  return max(round(steps / SEGMENT), 1) * SEGMENT


def _paced() -> optax.GradientTransformation:
  """Returns minus the update times the learning rate of the step."""

  def init(params: Any) -> Pace:
    del params
    return Pace(*jnp.zeros((3, 1), jnp.float32)[:, 0])

  def update(updates: Any, state: Pace, params: Any = None) -> tuple[Any, Pace]:
    del params
    share = state.step / state.steps
    decay = (1 + jnp.cos(jnp.pi * (share - WARMUP) / (1 - WARMUP))) / 2
    rate = state.peak * jnp.where(share < WARMUP, share / WARMUP, decay)
    scaled = jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates)
    return scaled, state._replace(step=state.step + 1)

  return optax.GradientTransformation(init, update)


_OPTIMIZER = optax.chain(
  optax.clip_by_global_norm(1.0),
  optax.scale_by_adam(),
  optax.add_decayed_weights(0.01),
  _paced(),
)
_start = jax.jit(jax.vmap(functools.partial(train.start, optimizer=_OPTIMIZER)))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _advance(
  loss: Callable[..., types.Array],
  batch_size: int,
  states: train.State,
  keys: types.PRNGKey,
  windows: types.Array,
  rows: types.Array,
) -> tuple[train.State, types.Array]:
  """Takes a segment of steps in each run, one after the other."""

  def one(operands: Any) -> tuple[train.State, types.Array]:
    state, key = operands
    return train.advance(
      jax.tree_util.Partial(loss, windows),
      state,
      rows,
      optimizer=_OPTIMIZER,
      steps=SEGMENT,
      batch_size=batch_size,
      key=key,
    )

  return jax.lax.map(one, (states, keys))
