"""Training many networks that differ in their seeds."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from experiments._run import checks
from experiments._shared import nets, side_by_side
from wsl import train, types

OPTIMIZERS = ('sgd', 'adamw')

Examples = tuple[types.Array, types.Array]


def check(config: ml_collections.ConfigDict, count: int) -> None:
  """Checks a training's config.

  Args:
    config: ``optimizer``, ``learning_rate``, ``weight_decay``, ``epochs``,
      ``batch_size``, ``at_once``.
    count: the number of images.

  Raises:
    ValueError: naming the field.
  """
  checks.sizes(
    {
      'training.epochs': (config.epochs, 1, None),
      'training.batch_size': (config.batch_size, 1, count),
      'training.at_once': (config.at_once, 1, None),
    }
  )
  checks.choice('training.optimizer', config.optimizer, OPTIMIZERS)


def describe(config: ml_collections.ConfigDict) -> str:
  """Returns the hyperparameters of a training in one line."""
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
  mesh: jax.sharding.Mesh | None = None,
) -> types.Params:
  """Trains R networks, ``at_once`` of them side by side.

  Args:
    net: the network.
    config: see ``check``.
    keys: ``[R]``, of initial weights and orders of the examples.
    examples: of all runs.
    pick: maps (examples, index of a run) to that run's images and labels.
    mesh: of the run, or None.

  Returns:
    Parameters, ``[R, ...]``; running moments are the initial ones.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  one = jax.eval_shape(pick, examples, jnp.zeros((), jnp.int32))
  init = functools.partial(jax.lax.map, net.init)
  fixed = dict(jax.jit(init)(keys))
  weights = fixed.pop('params')

  def own(shared: Any, run: types.Array) -> tuple[types.Params, Examples]:
    moments, examples = shared
    return side_by_side.pick(moments, run), pick(examples, run)

  trained = side_by_side.advance_all(
    'networks',
    functools.partial(loss, net),
    weights,
    jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys),
    (fixed, examples),
    own,
    steps=config.epochs * (one[1].shape[0] // config.batch_size),
    batch_size=config.batch_size,
    rate=config.learning_rate,
    at_once=config.at_once,
    optimizer=functools.partial(_optimizer, config),
    mesh=mesh,
  )
  return {**fixed, 'params': trained}


def loss(
  net: nets.Net,
  fixed: types.Params,
  weights: types.Params,
  batch: Examples,
  key: types.PRNGKey | None = None,
) -> types.Array:
  """Returns the mean cross-entropy of a batch.

  Args:
    net: the network.
    fixed: its variables that are not trained.
    weights: its parameters.
    batch: inputs, and one label for each, or for each of their tokens.
    key: not used.

  Returns:
    The mean in nats.
  """
  del key
  logits = net.fit_fn({**fixed, 'params': weights}, batch[0])
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, batch[1]
  ).mean()


def traced(
  net: nets.Net,
  config: ml_collections.ConfigDict,
  keys: types.PRNGKey,
  examples: Examples,
  *,
  rate: types.Scalar,
  decay: types.Scalar,
) -> types.Params:
  """Trains R networks in one traced call, equal to ``networks`` to rounding.

  Args:
    net: the network.
    config: see ``check``.
    keys: ``[R]``, of initial weights and orders of the examples.
    examples: of all runs.
    rate: the peak learning rate, which may be traced.
    decay: the weight decay, which may be traced.

  Returns:
    Parameters, ``[R, ...]``; NaN where a loss is not finite.
  """
  count = config.epochs * (examples[1].shape[0] // config.batch_size)
  steps = side_by_side.rounded(count)

  # Rate and decay are in the state of the optimizer, which is traced. Updates
  # of either optimizer are proportional to the rate of the schedule.
  def build(rate: types.Array, decay: types.Array) -> Any:
    unit = _optimizer(config, 1.0, steps=steps, decay=decay)
    return optax.chain(unit, optax.scale(rate))

  optimizer = optax.inject_hyperparams(build)(
    rate=jnp.asarray(rate, jnp.float32), decay=jnp.asarray(decay, jnp.float32)
  )

  def one(key: types.PRNGKey) -> types.Params:
    fixed = dict(net.init(key))
    weights = fixed.pop('params')
    state, losses = train.advance(
      jax.tree_util.Partial(functools.partial(loss, net), fixed),
      train.start(weights, optimizer=optimizer),
      examples,
      optimizer=optimizer,
      steps=steps,
      batch_size=config.batch_size,
      key=jax.random.fold_in(key, 1),
    )
    good = jnp.isfinite(losses[-1])
    weights = jax.tree.map(lambda x: jnp.where(good, x, jnp.nan), state.params)
    return {**fixed, 'params': weights}

  return jax.lax.map(one, keys, batch_size=config.at_once)


def _optimizer(
  config: ml_collections.ConfigDict,
  rate: float,
  *,
  steps: int,
  decay: Any = None,
) -> optax.GradientTransformation:
  """Returns AdamW, or SGD with momentum and coupled decay; cosine schedules."""
  decay = config.weight_decay if decay is None else decay
  if config.optimizer == 'adamw':
    return train.adamw(rate, steps=steps, weight_decay=decay)
  schedule = optax.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps)
  return optax.chain(
    optax.add_decayed_weights(decay), optax.sgd(schedule, momentum=0.9)
  )
