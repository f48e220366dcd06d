"""Training the networks of all pairs, side by side."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments import _console, _pairs
from wsl import train, types

SEGMENTS = 10  # between reports


def networks(setting: _pairs.Setting) -> types.Params:
  """Trains all networks, ``at_once`` side by side.

  Returns:
    Parameters, ``[S, 2, ...]``; running moments are those of the start.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  config = setting.config.training
  epoch = len(setting.train[1]) // config.batch_size
  segment = -(-config.epochs * epoch // SEGMENTS)
  optimizer = _optimizer(config, segment * SEGMENTS)
  keys = jax.vmap(jax.random.split)(_pairs.keys(setting, 0)).reshape(-1)
  begin = functools.partial(_begin, setting, optimizer)
  step = functools.partial(_advance, setting, optimizer, segment)
  advance = jax.jit(step)
  states, fixed = jax.jit(begin)(keys)
  with _console.progress('networks', SEGMENTS) as tick:
    for part in range(1, SEGMENTS + 1):
      states, losses = advance(states, fixed, keys, setting.train)
      now = float(jnp.mean(losses[:, -epoch:]))
      if not np.isfinite(now):
        raise FloatingPointError(
          f'networks: the loss is {now} before step {segment * part}: take a '
          f'learning rate below {config.learning_rate}'
        )
      tick(f'loss {now:.4f}')
  found = {**fixed, 'params': states.params}
  return jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:]), found)


def _begin(
  setting: _pairs.Setting,
  optimizer: optax.GradientTransformation,
  keys: types.PRNGKey,
) -> tuple[train.State, types.Params]:
  """Draws every network; apart from its weights is what is not trained."""

  def one(key: types.PRNGKey) -> tuple[train.State, types.Params]:
    fixed = dict(setting.init(key))
    weights = fixed.pop('params')
    return train.start(weights, optimizer=optimizer), fixed

  return jax.lax.map(one, keys)


def _advance(
  setting: _pairs.Setting,
  optimizer: optax.GradientTransformation,
  steps: int,
  states: train.State,
  fixed: types.Params,
  keys: types.PRNGKey,
  examples: _pairs.Examples,
) -> tuple[train.State, types.Array]:
  """Makes some steps with every network."""
  config = setting.config.training
  loss = functools.partial(_loss, setting)

  def one(operands: Any) -> tuple[train.State, types.Array]:
    state, fixed, key = operands
    return train.advance(
      jax.tree_util.Partial(loss, fixed),
      state,
      examples,
      optimizer=optimizer,
      steps=steps,
      batch_size=config.batch_size,
      key=jax.random.fold_in(key, 1),
    )

  operands = (states, fixed, keys)
  return jax.lax.map(one, operands, batch_size=config.at_once)


def _loss(
  setting: _pairs.Setting,
  fixed: types.Params,
  weights: types.Params,
  batch: _pairs.Examples,
  key: types.PRNGKey,
) -> types.Array:
  del key
  logits = setting.fit_fn({**fixed, 'params': weights}, batch[0])
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
  return jnp.mean(losses)


def _optimizer(
  config: ml_collections.ConfigDict, steps: int
) -> optax.GradientTransformation:
  """SGD with momentum and coupled decay, or AdamW; both rise and then fall."""
  rate, decay = config.learning_rate, config.weight_decay
  if config.optimizer == 'adamw':
    return train.adamw(rate, steps=steps, weight_decay=decay)
  schedule = optax.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps)
  return optax.chain(
    optax.add_decayed_weights(decay), optax.sgd(schedule, momentum=0.9)
  )
