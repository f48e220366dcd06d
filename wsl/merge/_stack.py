"""Stacks of task vectors: their number, maps and sums over the models."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types

# At most so many models are unrolled. The size of a program is proportional to
# this number; more models are mapped at once, and added in a loop of chunks.
_UNROLLED = 32
_CHUNK = 8
# A leaf in a file with more entries is read twice, in chunks, where a method
# needs a norm of it, and not once as a whole.
LARGE = 1 << 18


def count(function: str, deltas: types.Deltas) -> int:
  """Returns T, the length of the first axis that all leaves share.

  Args:
    function: the public function, as the user called it.
    deltas: stacked task vectors, every leaf ``[T, ...]`` or in factors.

  Raises:
    ValueError: naming the leaf that is not a stack of floats, or whose T
      differs.
  """
  deltas_lib.check_stacked(function, deltas)
  models = None
  for name, leaf in tree.named(deltas_lib.placeholders(deltas)).items():
    kind = getattr(leaf, 'dtype', type(leaf).__name__)
    if isinstance(kind, str) or not jnp.issubdtype(kind, jnp.inexact):
      raise ValueError(
        f"{function}: leaf '{name}' is of {kind}, not a stack of floats: stack "
        'models by deltas.stack, which leaves integers out'
      )
    if not leaf.shape or not leaf.shape[0]:
      raise ValueError(
        f"{function}: leaf '{name}' of shape {leaf.shape} holds no model: "
        'stack at least one by deltas.stack'
      )
    models = models or leaf.shape[0]
    if leaf.shape[0] != models:
      raise ValueError(
        f"{function}: leaf '{name}' stacks {leaf.shape[0]} models, the leaves "
        f'before it {models}: stack them by deltas.stack'
      )
  if models is None:
    raise ValueError(
      f'{function}: the deltas have no float leaf: nothing to merge'
    )
  return models


def arrays(function: str, leaves: types.Tree) -> types.Tree:
  """Returns leaves as arrays of JAX; those on demand are read.

  Raises:
    ValueError: if JAX would narrow a leaf, as it does float64 without x64.
  """
  leaves = tree.read(leaves)
  tree.check_not_narrowed(function, leaves)
  return jax.tree.map(jnp.asarray, leaves)


def views(
  function: str,
  deltas: types.Deltas,
  matrices: tree.Matrices | None,
  otherwise: str,
) -> types.Tree:
  """Returns the view of each leaf as matrices: ``tree.views`` of one model.

  Args:
    function: the public function, as the user called it.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    matrices: see ``tree.views``.
    otherwise: see ``tree.views``.

  Raises:
    ValueError: as ``count`` and ``tree.views``, naming the function.
  """
  count(function, deltas)
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), deltas
  )
  try:
    return tree.views(one, matrices, otherwise=otherwise)
  except ValueError as error:
    raise ValueError(f'{function}: {error}') from None


def sum_models(x: types.Array) -> types.Array:
  """Sums ``[T, ...] -> [...]`` over the models.

  On a CPU the sum is unrolled over T: XLA's backend there emits a scalar loop
  for a reduction of the leading axis, thirty times slower than the memory
  bandwidth. Elsewhere it is one instruction, which compiles faster.
  """
  at_once = lambda x: jnp.sum(x, 0, dtype=x.dtype)
  return jax.lax.platform_dependent(x, cpu=sum_in_turn, default=at_once)


def max_models(x: types.Array) -> types.Array:
  """Returns the maximum over the models, ``[T, ...] -> [...]``."""
  in_turn = functools.partial(reduce_in_turn, jnp.maximum)
  at_once = lambda x: jnp.max(x, axis=0)
  return jax.lax.platform_dependent(x, cpu=in_turn, default=at_once)


def map_models(
  kernel: Callable[..., types.Array], *stacks: types.Array
) -> types.Array:
  """Stacks ``kernel(x_t, ...)`` over the models of ``[T, ...]`` stacks.

  Unrolled over T on a CPU as well, so that a chain of edits and a sum compiles
  to one loop over the entries without an intermediate stack.
  """
  in_turn = functools.partial(map_in_turn, kernel)
  at_once = jax.vmap(kernel)
  return jax.lax.platform_dependent(*stacks, cpu=in_turn, default=at_once)


def sum_in_turn(x: types.Array) -> types.Array:
  """Sums over models, unrolled on every device."""
  return reduce_in_turn(jnp.add, x)


def map_in_turn(
  kernel: Callable[..., types.Array], *stacks: types.Array
) -> types.Array:
  """Maps models, unrolled on every device if they are not many."""
  if len(stacks[0]) > _UNROLLED:
    return jax.vmap(kernel)(*stacks)
  models = zip(*(jnp.unstack(x) for x in stacks))
  return jnp.stack([kernel(*xs) for xs in models])


def reduce_in_turn(
  combine: Callable[[types.Array, types.Array], types.Array],
  x: types.Array,
  kernel: Callable[[types.Array], types.Array] = lambda x: x,
) -> types.Array:
  """Combines ``kernel(x_t)`` of the models of a stack in order.

  A few models are unrolled. Many are combined in a loop of chunks, in the same
  order and with the same result.
  """
  fold = lambda found, xs: functools.reduce(combine, map(kernel, xs), found)
  if len(x) <= _UNROLLED:
    first, *rest = jnp.unstack(x)
    return fold(kernel(first), rest)
  head = 1 + (len(x) - 1) % _CHUNK

  def step(i: Any, found: types.Array) -> types.Array:
    start = head + i * _CHUNK
    chunk = jax.lax.dynamic_slice_in_dim(x, start, _CHUNK)
    return fold(found, jnp.unstack(chunk))

  first, *rest = jnp.unstack(x[:head])
  found = fold(kernel(first), rest)
  return jax.lax.fori_loop(0, (len(x) - head) // _CHUNK, step, found)


def weigh(x: types.Array, weights: types.Array) -> types.Array:
  """Multiplies the models of ``[T, ...]`` by ``[T]``, in float32 or wider."""
  wide = tree.wide(x)
  return map_models(jnp.multiply, wide, weights.astype(wide.real.dtype))


def expand_rank(x: types.Array, leaf: types.Array) -> types.Array:
  """Reshapes ``[T]`` to ``[T, 1, ..., 1]``, the rank of ``leaf``."""
  return x.reshape(x.shape + (1,) * (leaf.ndim - x.ndim))


def fuse(deltas: types.Tree, steps: Callable[[Any], types.Tree]) -> types.Tree:
  """Applies a method of several steps as one program for each leaf.

  Called on arrays, each step of a chain such as trim, elect, mean would write
  a whole stack to memory. Here the steps see leaves on demand, so only their
  composition is computed. It changes memory and time, not the result; in a
  trace, and for leaves on demand, a plain chain is fused without it.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``; or several operands.
    steps: maps the deltas to the method's result by functions of trees.

  Returns:
    The result; on demand if ``deltas`` is.
  """
  result = steps(tree.defer(deltas))
  return result if tree.on_demand(deltas) else tree.read(result)


def per_leaf(label: str, values: Any, deltas: types.Deltas) -> types.Tree:
  """Returns a tree with a value for each leaf of ``deltas``.

  Args:
    label: the function and the argument, for messages.
    values: such a tree, or one value for all leaves.
    deltas: stacked task vectors.

  Raises:
    ValueError: if the tree has not one value for each leaf, naming the leaf.
  """
  numbers = isinstance(values, (list, tuple)) and all(
    isinstance(value, (int, float)) for value in values
  )
  if numbers or jax.tree_util.all_leaves([values]):
    values = jnp.asarray(values) if numbers else values
    return tree.at_leaves(values, deltas)
  is_leaf = lambda x: x is None or isinstance(x, types.Gram)
  values = tree.conform(label, values, 'the deltas', deltas, is_leaf=is_leaf)
  floats = tree.named(deltas)
  for name in tree.named(values, is_leaf=lambda x: isinstance(x, types.Gram)):
    if name not in floats:
      raise ValueError(
        f"{label}: a leaf '{name}' where the deltas have None: make it None"
      )
  return values


def one_delta(
  label: str, delta: types.Delta, deltas: types.Deltas
) -> types.Delta:
  """Returns one task vector in the containers of a stack, after a check.

  Args:
    label: the function and the argument, for messages.
    delta: a task vector, every leaf ``[...]``.
    deltas: stacked task vectors, every leaf ``[T, ...]``.

  Raises:
    ValueError: if a leaf is missing or has another shape, naming the leaf.
  """
  delta = per_leaf(label, delta, deltas)
  found = tree.named(delta)
  for name, x in tree.named(deltas).items():
    if tuple(found[name].shape) != tuple(x.shape[1:]):
      raise ValueError(
        f"{label} leaf '{name}' has shape {tuple(found[name].shape)}, "
        f'expected {tuple(x.shape[1:])}: give one merged task vector'
      )
  return delta
