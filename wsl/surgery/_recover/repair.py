"""What a failure replaces: weights of stages and their optimizer state."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.surgery._recover import stages as stages_lib


def choose(condition: types.Array, one: Any, other: Any) -> Any:
  """Returns one of two trees."""
  return jax.tree.map(functools.partial(jnp.where, condition), one, other)


def replaced(
  stages: types.Params,
  initial: types.Params,
  lost: types.Array,
  norms: types.Array,
  recovery: str,
) -> types.Params:
  """Returns the stages after those lost are replaced."""
  if recovery == 'initial':
    pick = lambda x, first: jnp.where(by_stage(lost, x), first, x)
    return jax.tree.map(pick, stages, initial)
  weights = norms + 1e-4 if recovery == 'average' else jnp.ones_like(norms)
  below, above, share = stages_lib.neighbours(jnp, lost, weights)
  if recovery == 'copy':
    share = jnp.zeros_like(share)
  return jax.tree.map(
    lambda x: stages_lib.mix_stacked(
      x, failed=lost, below=below, above=above, share=share
    ),
    stages,
  )


def of_state(optimizer: Any, state: Any, values: types.Params) -> Any:
  """Lays values of the parameters out as a state; other entries are False."""
  import optax

  return optax.tree_utils.tree_map_params(
    optimizer,
    lambda _, value: value,
    state,
    values,
    transform_non_params=lambda _: False,
  )


def by_stage(x: types.Array, leaf: types.Array) -> types.Array:
  """Reshapes ``[S]`` for a leaf ``[S, ...]``."""
  return x.reshape(-1, *(1,) * (leaf.ndim - 1))


def scaled(
  old: types.Array, new: types.Array, factors: types.Array
) -> types.Array:
  """Multiplies the step of each stage by its factor."""
  factor = by_stage(factors, old).astype(old.dtype)
  return jnp.where(factor == 1, new, old + factor * (new - old))


def norms(stages: types.Params) -> types.Array:
  """Returns the norm of each stage, ``[S]``, in float32 or wider."""
  squares = [
    jnp.sum(tree.square(tree.wide(x)).reshape(len(x), -1), axis=1)
    for x in jax.tree.leaves(stages)
  ]
  return jnp.sqrt(sum(squares[1:], start=squares[0]))
