"""Training the networks of all pairs, side by side."""

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
  each = jax.vmap(lambda key: jax.random.split(key))(_pairs.keys(setting, 0))
  each = each.reshape(-1)

  def loss(
    fixed: Any, params: Any, batch: _pairs.Examples, key: Any
  ) -> types.Array:
    del key
    logits = setting.fit_fn({**fixed, 'params': params}, batch[0])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
    return jnp.mean(losses)

  @jax.jit
  def begin(keys: types.PRNGKey) -> tuple[train.State, types.Params]:
    def one(key: types.PRNGKey) -> tuple[train.State, types.Params]:
      params = dict(setting.init(key))
      trained = params.pop('params')
      return train.start(trained, optimizer=optimizer), params

    return jax.lax.map(one, keys)

  @jax.jit
  def advance_all(
    states: train.State,
    fixed: Any,
    keys: types.PRNGKey,
    examples: _pairs.Examples,
  ) -> tuple[train.State, types.Array]:
    def advance(operands: Any) -> tuple[train.State, types.Array]:
      state, fixed, key = operands
      return train.advance(
        jax.tree_util.Partial(loss, fixed),
        state,
        examples,
        optimizer=optimizer,
        steps=segment,
        batch_size=config.batch_size,
        key=jax.random.fold_in(key, 1),
      )

    operands = (states, fixed, keys)
    return jax.lax.map(advance, operands, batch_size=config.at_once)

  states, fixed = begin(each)
  with _console.progress('networks', SEGMENTS) as tick:
    for part in range(1, SEGMENTS + 1):
      states, losses = advance_all(states, fixed, each, setting.train)
      now = float(jnp.mean(losses[:, -epoch:]))
      if not np.isfinite(now):
        raise FloatingPointError(
          f'networks: the loss is {now} before step {segment * part}: take a '
          f'learning rate below {config.learning_rate}'
        )
      tick(f'loss {now:.4f}')
  found = {**fixed, 'params': states.params}
  pairs = lambda x: x.reshape(-1, 2, *x.shape[1:])
  return jax.tree.map(pairs, found)


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
