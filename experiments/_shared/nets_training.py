"""Training many networks that differ in their seeds, side by side."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments._run import console
from experiments._shared import nets
from wsl import train, tree, types

SEGMENTS = 10  # between reports
OPTIMIZERS = ('sgd', 'adamw')

Examples = tuple[types.Array, types.Array]


def check(config: ml_collections.ConfigDict, count: int) -> None:
  """Checks a training's config.

  Args:
    config: ``optimizer``, ``learning_rate``, ``weight_decay``, ``epochs``,
      ``batch_size``, ``at_once``.
    count: how many images there are.

  Raises:
    ValueError: naming the field.
  """
  limits = {'epochs': None, 'batch_size': count, 'at_once': None}
  for name, most in limits.items():
    if config[name] < 1 or (most is not None and config[name] > most):
      wanted = '1 or more' if most is None else f'1 .. {most}'
      raise ValueError(f'training.{name}={config[name]}: expected {wanted}')
  if config.optimizer not in OPTIMIZERS:
    hint = tree.nearest(config.optimizer, OPTIMIZERS)
    raise ValueError(
      f"training.optimizer: no '{config.optimizer}'{hint}: there are "
      f'{", ".join(OPTIMIZERS)}'
    )


def describe(config: ml_collections.ConfigDict) -> str:
  """Returns what decides how far apart networks come to lie."""
  return (
    f'{config.optimizer}, learning rate {config.learning_rate:g}, weight decay '
    f'{config.weight_decay:g}, {config.epochs} epochs'
  )


def everything(examples: Examples, run: types.Array) -> Examples:
  """Gives every run all examples."""
  del run
  return examples


def networks(
  net: nets.Net,
  config: ml_collections.ConfigDict,
  keys: types.PRNGKey,
  examples: Any,
  pick: Callable[[Any, types.Array], Examples] = everything,
) -> types.Params:
  """Trains R networks, ``at_once`` of them side by side.

  Args:
    net: the network.
    config: see ``check``.
    keys: ``[R]``, of weights and orders.
    examples: of all runs.
    pick: maps (examples, number of a run) to the images and labels of it.

  Returns:
    Parameters, ``[R, ...]``; running moments are those of the start.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  one = jax.eval_shape(pick, examples, jnp.zeros((), jnp.int32))
  epoch = one[1].shape[0] // config.batch_size
  segment = -(-config.epochs * epoch // SEGMENTS)
  optimizer = _optimizer(config, segment * SEGMENTS)
  step = functools.partial(_advance, net, config, optimizer, segment, pick)
  advance = jax.jit(step)
  states, fixed = jax.jit(functools.partial(_begin, net, optimizer))(keys)
  with console.progress('networks', SEGMENTS) as tick:
    for part in range(1, SEGMENTS + 1):
      states, losses = advance(states, fixed, keys, examples)
      now = float(jnp.mean(losses[:, -epoch:]))
      if not np.isfinite(now):
        raise FloatingPointError(
          f'networks: the loss is {now} before step {segment * part}: take a '
          f'learning rate below {config.learning_rate}'
        )
      tick(f'loss {now:.4f}')
  return {**fixed, 'params': states.params}


def _begin(
  net: nets.Net, optimizer: optax.GradientTransformation, keys: types.PRNGKey
) -> tuple[train.State, types.Params]:
  """Draws every network; apart from its weights is what is not trained."""

  def one(key: types.PRNGKey) -> tuple[train.State, types.Params]:
    fixed = dict(net.init(key))
    weights = fixed.pop('params')
    return train.start(weights, optimizer=optimizer), fixed

  return jax.lax.map(one, keys)


def _advance(
  net: nets.Net,
  config: ml_collections.ConfigDict,
  optimizer: optax.GradientTransformation,
  steps: int,
  pick: Callable[[Any, types.Array], Examples],
  states: train.State,
  fixed: types.Params,
  keys: types.PRNGKey,
  examples: Any,
) -> tuple[train.State, types.Array]:
  """Makes some steps with every network."""
  loss = functools.partial(_loss, net)

  def one(operands: Any) -> tuple[train.State, types.Array]:
    run, state, fixed, key = operands
    return train.advance(
      jax.tree_util.Partial(loss, fixed),
      state,
      pick(examples, run),
      optimizer=optimizer,
      steps=steps,
      batch_size=config.batch_size,
      key=jax.random.fold_in(key, 1),
    )

  operands = (jnp.arange(len(keys)), states, fixed, keys)
  return jax.lax.map(one, operands, batch_size=config.at_once)


def _loss(
  net: nets.Net,
  fixed: types.Params,
  weights: types.Params,
  batch: Examples,
  key: types.PRNGKey,
) -> types.Array:
  del key
  logits = net.fit_fn({**fixed, 'params': weights}, batch[0])
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
