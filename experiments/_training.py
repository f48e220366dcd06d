"""The three trainings of a vision suite: base, experts, one model for all."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _console, _suite
from wsl import data, train, types

SEGMENTS = 10  # of a run, between reports


def base(suite: _suite.Suite) -> types.Params:
  """Trains encoder and heads on a few images of every task.

  Returns:
    ``{'encoder': [S, ...], 'heads': [S, T, ...]}``.
  """
  config = suite.config.base
  few = jax.tree.map(lambda x: x[:, : config.examples], suite.tasks.train)

  def loss(
    bound: None, params: types.Params, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    del bound
    heads, encoder = params['heads'], params['encoder']
    return _mixture_loss(suite, heads, encoder, batch, key)

  keys = _suite.keys(suite, 0)
  start = jax.jit(functools.partial(jax.lax.map, suite.init))
  return _train(
    suite,
    'base',
    loss,
    (None, start(keys), keys),
    _mixture(few),
    steps=config.steps,
    batch_size=config.batch_size,
    rate=config.learning_rate,
  )


def experts(
  suite: _suite.Suite, base: types.Params, heads: types.Params
) -> types.Params:
  """Trains the encoder on each task alone.

  Args:
    suite: what every stage needs.
    base: encoders to begin from, ``[S, ...]``.
    heads: ``[S, T, ...]``; they stay as they are.

  Returns:
    Encoders, ``[S, T, ...]``.
  """
  config, tasks = suite.config, suite.tasks
  count = len(tasks.names)

  def loss(
    head: types.Params, encoder: types.Params, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    del key
    logits = suite.classify({'encoder': encoder, 'head': head}, batch.x)
    return _cross_entropy(logits, batch.y)

  def own(split: data.Split, run: types.Array) -> data.Split:
    return jax.tree.map(lambda x: x[run % count], split)

  flat = lambda x: x.reshape(-1, *x.shape[2:])
  keys = jax.vmap(lambda key: jax.random.split(key, count))(
    _suite.keys(suite, 1)
  )
  trained = _train(
    suite,
    'experts',
    loss,
    (
      jax.tree.map(flat, heads),
      jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), base),
      flat(keys),
    ),
    tasks.train,
    own,
    steps=_expert_steps(suite),
    batch_size=config.experts.batch_size,
    rate=config.models[config.model].expert_rate,
  )
  return jax.tree.map(
    lambda x: x.reshape(config.seeds, count, *x.shape[1:]), trained
  )


def joint(
  suite: _suite.Suite, base: types.Params, heads: types.Params
) -> types.Params:
  """Trains the encoder on all tasks, in as many steps as all experts took.

  Args:
    suite: what every stage needs.
    base: encoders to begin from, ``[S, ...]``.
    heads: ``[S, T, ...]``; they stay as they are.

  Returns:
    Encoders, ``[S, ...]``.
  """
  config = suite.config
  return _train(
    suite,
    'joint',
    functools.partial(_mixture_loss, suite),
    (heads, base, _suite.keys(suite, 2)),
    _mixture(suite.tasks.train),
    steps=_expert_steps(suite) * len(suite.tasks.names),
    batch_size=config.experts.batch_size,
    rate=config.models[config.model].expert_rate,
  )


def _everything(examples: types.Tree, run: types.Array) -> types.Tree:
  del run
  return examples


def _train(
  suite: _suite.Suite,
  label: str,
  loss: Callable[..., types.Array],
  runs: tuple[types.Tree, types.Params, types.PRNGKey],
  examples: types.Tree,
  pick: Callable[[types.Tree, types.Array], types.Tree] = _everything,
  *,
  steps: int,
  batch_size: int,
  rate: float,
) -> types.Params:
  """Trains R runs, ``at_once`` of them side by side, and shows how they fare.

  Args:
    suite: what every stage needs.
    label: the stage.
    loss: maps (bound, params, batch, key) to a scalar.
    runs: (bound, params, key) of each run, leaves ``[R, ...]``.
    examples: of all runs.
    pick: maps (examples, number of a run) to the examples of that run.
    steps: about how many; rounded up to whole segments.
    batch_size: examples in a batch.
    rate: peak learning rate.

  Returns:
    The trained parameters, leaves ``[R, ...]``.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  bound, params, keys = runs
  segment = -(-steps // SEGMENTS)
  optimizer = train.adamw(rate, steps=segment * SEGMENTS)

  @jax.jit
  def advance_all(
    bound: types.Tree, states: train.State, keys: types.PRNGKey, examples: Any
  ) -> tuple[train.State, types.Array]:
    def advance(operands: Any) -> tuple[train.State, types.Array]:
      run, bound, state, key = operands
      return train.advance(
        jax.tree_util.Partial(loss, bound),
        state,
        pick(examples, run),
        optimizer=optimizer,
        steps=segment,
        batch_size=batch_size,
        key=key,
      )

    operands = (jnp.arange(len(keys)), bound, states, keys)
    return jax.lax.map(advance, operands, batch_size=suite.config.at_once)

  examples = jax.tree.map(jnp.asarray, examples)
  start = functools.partial(train.start, optimizer=optimizer)
  states = jax.jit(jax.vmap(start))(params)
  with _console.progress(label, SEGMENTS) as tick:
    for part in range(1, SEGMENTS + 1):
      states, losses = advance_all(bound, states, keys, examples)
      now = float(jnp.mean(losses))
      if not np.isfinite(now):
        raise FloatingPointError(
          f'{label}: the loss is {now} before step {segment * part}: take a '
          f'learning rate below {rate}'
        )
      tick(f'loss {now:.3f}')
  return states.params


def _mixture(
  split: data.Split,
) -> tuple[types.Array, types.Array, types.Array]:
  """Joins the tasks: (images, labels, number of the task), ``[T N, ...]``."""
  x, y = jnp.asarray(split.x), jnp.asarray(split.y)
  task = jnp.repeat(jnp.arange(y.shape[0], dtype=y.dtype), y.shape[1])
  return x.reshape(-1, *x.shape[2:]), y.reshape(-1), task


def _mixture_loss(
  suite: _suite.Suite,
  heads: types.Params,
  encoder: types.Params,
  batch: tuple[types.Array, types.Array, types.Array],
  key: types.PRNGKey,
) -> types.Array:
  """Returns the loss of examples that each have their own task's head."""
  del key
  x, y, task = batch
  features = suite.encode(encoder, x)
  logits = jnp.einsum('bw,twc->btc', features, heads['kernel'])
  logits = logits + heads['bias'][None]
  own = jnp.take_along_axis(logits, task[:, None, None], axis=1)[:, 0]
  return _cross_entropy(own, y)


def _cross_entropy(logits: types.Array, labels: types.Array) -> types.Array:
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return jnp.mean(losses)


def _expert_steps(suite: _suite.Suite) -> int:
  config = suite.config.experts
  return config.epochs * (suite.tasks.train.y.shape[1] // config.batch_size)
