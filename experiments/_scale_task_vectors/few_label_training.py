"""Parameterisations for few labels: coefficients, factors, a head, or all.

Each is a pair of functions of the models of a run, ``bound = {'base', 'head',
'stack'}``: the initial parameters, and encoder and head given parameters.
"""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments._scale_task_vectors import leaf_order, task_vectors
from experiments._shared import side_by_side, suites
from wsl import scale, tree, types


class Trained(NamedTuple):
  """A parameterisation.

  Attributes:
    start: maps (bound, key) to initial parameters.
    build: maps (bound, parameters) to (encoder, head).
    rate: peak learning rate.
    size: the number of parameters.
    note: details beyond the name of the method.
    logits: maps (encode, bound, parameters, images) to logits; by default those
      of the encoder and head that ``build`` returns.
    finish: maps (encode, bound, parameters) to parameters, after the training.
  """

  start: Callable[[Any, types.PRNGKey], types.Tree]
  build: Callable[[Any, types.Tree], tuple[types.Params, types.Params]]
  rate: float
  size: int
  note: str = ''
  logits: Callable[..., types.Array] | None = None
  finish: Callable[..., types.Tree] | None = None


def logits(
  trained: Trained,
  encode: Callable[..., types.Array],
  bound: Any,
  params: types.Tree,
  x: types.Array,
) -> types.Array:
  """Returns the logits ``[B, C]`` of images."""
  if trained.logits is not None:
    return trained.logits(encode, bound, params, x)
  encoder, head = trained.build(bound, params)
  return task_vectors.logits(encode, head, encoder, x)


def coefs(suite: suites.Suite, models: task_vectors.Models, by: Any) -> Trained:
  """Trains coefficients of the other tasks' vectors, from 0."""
  base, stack = side_by_side.pick((models.base, models.stack), 0)
  others = range(1, len(suite.tasks.names))
  bank = task_vectors.bank(suite, base, stack, others)
  start = scale.init(bank, by=by, key=jax.random.key(0))
  kind = 'entry' if by == 'entry' else 'coefs'
  return Trained(
    lambda bound, key: start,
    _compose,
    suite.config.rates[kind],
    _size(start),
  )


def lora(suite: suites.Suite, budget: int) -> Trained:
  """Trains low-rank changes of the last matrices, ``budget`` numbers or so."""
  shapes = leaf_order.matrices(suite)
  last, rank = _choose(list(shapes.values()), budget)
  chosen = dict(list(shapes.items())[-last:])

  def start(bound: Any, key: types.PRNGKey) -> types.Tree:
    del bound
    keys = jax.random.split(key, last)
    return {
      name: _factors(shape, rank, keys[i])
      for i, (name, shape) in enumerate(chosen.items())
    }

  where = 'all' if last == len(shapes) else f'the last {last}'
  where = 'the last' if last == 1 < len(shapes) else where
  return Trained(
    start,
    _add,
    suite.config.rates.lora,
    sum(_lora_size(shape, rank) for shape in chosen.values()),
    f'rank {rank} on {where} of {len(shapes)} matrices',
  )


def probe(suite: suites.Suite) -> Trained:
  """Trains the head only."""
  heads = suites.shapes(suite)['heads']
  return Trained(
    lambda bound, key: bound['head'],
    lambda bound, head: (bound['base'], head),
    suite.config.rates.probe,
    _size(heads) // len(suite.tasks.names),
  )


def full(suite: suites.Suite) -> Trained:
  """Trains the whole encoder."""
  return Trained(
    lambda bound, key: bound['base'],
    lambda bound, encoder: (encoder, bound['head']),
    suite.config.rates.full,
    _size(suites.shapes(suite)['encoder']),
  )


def _compose(
  bound: Any, coefs: scale.Coefs
) -> tuple[types.Params, types.Params]:
  """Adds the scaled vectors to the base."""
  bank = scale.as_bank(bound['base'], bound['stack'])
  return scale.compose(bound['base'], bank, coefs), bound['head']


def _add(bound: Any, factors: types.Tree) -> tuple[types.Params, types.Params]:
  """Adds products of factors to the base."""

  def changed(name: str, x: types.Array) -> types.Array:
    if name not in factors:
      return x
    return x + jnp.tensordot(factors[name]['left'], factors[name]['right'], 1)

  return tree.map_named(changed, bound['base']), bound['head']


def _factors(
  shape: tuple[int, ...], rank: int, key: types.PRNGKey
) -> dict[str, types.Array]:
  """Draws factors whose product is 0: one random, one zero."""
  left = jax.random.normal(key, (*shape[:-1], rank), jnp.float32)
  return {
    'left': left / math.prod(shape[:-1]) ** 0.5,
    'right': jnp.zeros((rank, shape[-1]), jnp.float32),
  }


def _choose(shapes: list[tuple[int, ...]], budget: int) -> tuple[int, int]:
  """Returns (number of last matrices, rank) for about ``budget`` parameters.

  Among choices within a fifth of the budget, the one on most matrices; if there
  is none, the nearest.
  """
  sizes = {
    (last, rank): sum(_lora_size(shape, rank) for shape in shapes[-last:])
    for last in range(1, len(shapes) + 1)
    for rank in range(1, min(min(_flat(s)) for s in shapes[-last:]) + 1)
  }
  # Distance in log size: half and double the budget are equally far.
  off = {choice: abs(math.log(n / budget)) for choice, n in sizes.items()}
  near = [choice for choice, by in off.items() if by < math.log(1.2)]
  if not near:
    return min(off, key=lambda choice: off[choice])
  return max(near, key=lambda choice: (choice[0], -off[choice]))


def _flat(shape: tuple[int, ...]) -> tuple[int, int]:
  """Returns the shape of a leaf as a matrix."""
  return math.prod(shape[:-1]), shape[-1]


def _lora_size(shape: tuple[int, ...], rank: int) -> int:
  return rank * sum(_flat(shape))


def _size(params: types.Tree) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(params))
