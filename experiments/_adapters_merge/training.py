"""The trainings: a base, and the LoRAs of each pool."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments._adapters_merge import problems, settings
from experiments._shared import side_by_side
from wsl import adapters, deltas, tree, types


def base(setting: settings.Setting) -> types.Params:
  """Trains body and heads on all tasks, ``[S, ...]``."""
  config, problem = setting.config, setting.problem
  keys = side_by_side.keys(config.seed, 0, config.seeds)

  def loss(
    bound: None, params: types.Params, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    del bound, key
    # A batch has as many examples of each task, [B, T, ...].
    of_task = functools.partial(problem.loss, params['body'])
    heads = problems.heads_of(problem, params)
    return jnp.mean(jax.vmap(of_task, (0, 1))(heads, batch))

  starts = jax.jit(functools.partial(jax.lax.map, problem.init))(keys)
  starts = {k: x for k, x in starts.items() if x}
  together = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), problem.few)
  return side_by_side.advance_all(
    'base',
    loss,
    starts,
    keys,
    together,
    lambda examples, run: (None, examples),
    steps=config.base.steps,
    batch_size=max(config.base.batch_size // len(problem.names), 1),
    rate=config.base.learning_rate,
    at_once=config.at_once,
  )


def loras(
  setting: settings.Setting, base: types.Params, name: str
) -> types.Params:
  """Trains a LoRA for each task on the base, with its head.

  Returns:
    ``a`` and ``b`` by the name of the leaf, ``[S, T, ...]``.
  """
  config, problem = setting.config, setting.problem
  count, pool = len(problem.names), settings.POOLS[name]
  starts = side_by_side.flat(_starts(setting, name))
  parts = {
    'a': {k: x.a for k, x in starts.items()},
    'b': {k: x.b for k, x in starts.items()},
  }
  fixed = {'a': parts.pop('a')} if pool.frozen else {}

  def pick(shared: Any, run: types.Array) -> tuple[Any, Any]:
    bodies, heads, fixed, split = shared
    bound = (
      side_by_side.pick(bodies, run // count),
      side_by_side.pick(heads, run),
      side_by_side.pick(fixed, run),
    )
    return bound, side_by_side.pick(split, run % count)

  def loss(
    bound: Any, params: types.Params, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    del key
    body, head, fixed = bound
    both = {**fixed, **params}
    one = jnp.ones(())
    delta = {
      k: dataclasses.replace(x, a=both['a'][k], b=both['b'][k], scale=one)
      for k, x in starts.items()
    }
    return problem.loss(add(body, delta, 1.0), head, batch)

  heads = problems.heads_of(problem, base)
  keys = side_by_side.keys(config.seed, 1, config.seeds)
  split = jax.vmap(functools.partial(jax.random.split, num=count))
  found = side_by_side.advance_all(
    f'{name} LoRAs',
    loss,
    parts,
    split(keys).reshape(-1),
    (base['body'], side_by_side.flat(heads), fixed, problem.train),
    pick,
    steps=config.lora.steps,
    batch_size=config.lora.batch_size,
    rate=config.lora.rate,
    at_once=config.at_once,
  )
  return side_by_side.fold({**fixed, **found}, config.seeds, count)


def add(body: types.Params, delta: Any, coef: Any) -> types.Params:
  """Adds task vectors of some leaves, by name."""
  full = tree.map_named(lambda name, _: delta.get(name), body)
  return deltas.apply(body, full, coef=coef)


def stack(
  setting: settings.Setting, pool: types.Params
) -> dict[str, adapters.Factors]:
  """Returns the LoRAs of a pool as factors, ``[S, T, ...]``."""
  a, b = (tree.named(pool[side]) for side in 'ab')
  template = jax.eval_shape(lambda: _starts(setting, 'own'))
  ones = jnp.ones((setting.config.seeds, len(setting.problem.names)))
  return {
    k: dataclasses.replace(x, a=a[k], b=b[k], scale=ones.astype(a[k].dtype))
    for k, x in template.items()
  }


def _starts(
  setting: settings.Setting, name: str
) -> dict[str, adapters.Factors]:
  """Draws the LoRAs of all seeds and tasks, ``[S, T, ...]``."""
  config, pool = setting.config, settings.POOLS[name]
  body = problems.shapes(setting.problem)['body']
  count = len(setting.problem.names)

  def of_seed(key: types.PRNGKey) -> dict[str, adapters.Factors]:
    drawn = adapters.orthogonal_bases(
      body,
      rank=config.lora.rank,
      tasks=[0] if pool.same else range(count),
      key=key,
      kind=pool.kind,
      leaves=config.lora.leaves,
    )
    repeat = lambda x: jnp.broadcast_to(x, (count, *x.shape[1:]))
    return jax.tree.map(repeat, drawn)

  keys = side_by_side.keys(config.seed, 2, config.seeds)
  return jax.jit(jax.vmap(of_seed))(keys)
