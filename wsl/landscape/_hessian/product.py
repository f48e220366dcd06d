"""Products of the Hessian of a loss over batches with directions.

A direction is a list of arrays, one for each chosen leaf, in float32 or wider.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from wsl import batches as batches_lib
from wsl import tree, types

Direction: TypeAlias = list[types.Array]
Product: TypeAlias = Callable[[Direction], Direction]


class Chosen(NamedTuple):
  """Which leaves are differentiated, and where they are; static.

  Attributes:
    leaves: for each leaf of the model, whether it is chosen.
    places: for each chosen leaf its sharding on a mesh; None if it is on one
      device, or traced: there, XLA decides.
  """

  leaves: tuple[bool, ...]
  places: tuple[jax.sharding.NamedSharding | None, ...]


class Problem(NamedTuple):
  """The operands of a compiled function of a Hessian.

  Attributes:
    loss_fn: maps (params, batch) to the mean loss of a batch.
    params: the model.
    groups: batches of equal shapes, to be iterated over in one loop each.
    key: of random directions.
  """

  loss_fn: Callable[[types.Params, Any], types.Array]
  params: types.Params
  groups: tuple[tuple[Any, ...], ...]
  key: types.PRNGKey


def problem(
  name: str,
  loss_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  batches: Iterable[Any],
  leaves: types.Leaves | None,
  key: types.PRNGKey,
) -> tuple[Problem, Chosen]:
  """Checks the arguments of a public function of a Hessian.

  Args:
    name: the public function, for messages.
    loss_fn: its argument.
    params: its argument.
    batches: its argument.
    leaves: its argument.
    key: its argument.

  Returns:
    The operands, and the chosen leaves.

  Raises:
    ValueError: naming the argument or leaf.
  """
  params = tree.read(params)
  tree.check_not_narrowed(name, params)
  tree.check_real(name, params, 'the Hessian is that of real parameters')
  wanted = tree.select(params, leaves or (lambda name, shape: True))
  leaves_of = jax.tree.leaves(params)
  flags = tuple(
    flag and tree.is_float(jnp.asarray(x))
    for x, flag in zip(leaves_of, jax.tree.leaves(wanted))
  )
  if not any(flags):
    raise ValueError(f'{name}: leaves= chooses no leaf of floats: choose one')
  groups: dict[Any, list[Any]] = {}
  for batch in batches_lib.stream(batches, name=name):
    arrays, structure = jax.tree.flatten(batch)
    shapes = tuple((jnp.shape(x), jnp.result_type(x)) for x in arrays)
    groups.setdefault((structure, shapes), []).append(batch)
  stacked = tuple(tuple(group) for group in groups.values())
  places = tuple(_place(x) for x, flag in zip(leaves_of, flags) if flag)
  given = Problem(tree.partial(loss_fn), params, stacked, key)
  return given, Chosen(flags, places)


def product(name: str, given: Problem, chosen: Chosen) -> Product:
  r"""Returns the product with the Hessian of the mean loss over all examples.

  .. math:: H v = \frac{1}{\sum_b n_b} \sum_b n_b \nabla^2 L_b(\theta) \, v

  Each term is the derivative of the gradient along v: forward over reverse, at
  a few times the cost of a gradient. Nothing of size n by n is computed.
  """
  values, rebuild = _split(given.params, chosen)

  def of_batch(direction: Direction, batch: Any) -> Direction:
    inputs = jax.tree.leaves(batches_lib.inputs_of(batch))
    weight = inputs[0].shape[0] / examples

    def loss(values: Direction) -> types.Array:
      return _number(name, given.loss_fn(rebuild(values), batch))

    _, change = jax.jvp(jax.grad(loss), (values,), (direction,))
    return [x * weight for x in change]

  sizes = [
    len(group) * jax.tree.leaves(batches_lib.inputs_of(group[0]))[0].shape[0]
    for group in given.groups
  ]
  examples = sum(sizes)

  def apply(direction: Direction) -> Direction:
    total = [jnp.zeros_like(x) for x in direction]
    for group in given.groups:
      if len(group) == 1:
        total = _add(total, of_batch(direction, group[0]))
        continue
      # One program for all batches of a shape.
      rows = jax.tree.map(lambda *x: jnp.stack(x), *group)
      add = lambda total, row: (_add(total, of_batch(direction, row)), None)
      total = jax.lax.scan(add, total, rows)[0]
    return total

  return apply


def directions(
  params: types.Params, chosen: Chosen
) -> tuple[list[str], Direction]:
  """Returns names and zeros of the chosen leaves, in float32 or wider."""
  items = zip(tree.named(params).items(), chosen.leaves)
  named = dict(item for item, flag in items if flag)
  zeros = [jnp.zeros_like(tree.wide(jnp.asarray(x))) for x in named.values()]
  return list(named), zeros


def as_tree(
  params: types.Params, chosen: Chosen, found: Sequence[types.Array]
) -> types.Tree:
  """Returns arrays of the chosen leaves as a tree, None at other leaves."""
  rest = iter(found)
  leaves = [next(rest) if flag else None for flag in chosen.leaves]
  return jax.tree.unflatten(jax.tree.structure(params), leaves)


def size(params: types.Params, chosen: Chosen) -> int:
  """Returns n, the number of chosen parameters."""
  leaves = jax.tree.leaves(params)
  return sum(jnp.size(x) for x, flag in zip(leaves, chosen.leaves) if flag)


def keep(rows: Direction, chosen: Chosen) -> Direction:
  """Constrains stacked directions ``[m, ...]`` to be sharded as the model."""
  found = []
  for x, place in zip(rows, chosen.places, strict=True):
    if place is not None:
      spec = jax.sharding.PartitionSpec(None, *place.spec)
      where = jax.sharding.NamedSharding(place.mesh, spec)
      x = jax.lax.with_sharding_constraint(x, where)
    found.append(x)
  return found


def _place(x: Any) -> jax.sharding.NamedSharding | None:
  """Returns the sharding of a leaf on a mesh of several devices."""
  sharding = getattr(x, 'sharding', None)
  if isinstance(x, jax.core.Tracer) or not isinstance(
    sharding, jax.sharding.NamedSharding
  ):
    return None
  return sharding if sharding.num_devices > 1 else None


def _number(name: str, found: Any) -> types.Array:
  """Checks the result of a loss."""
  is_array = hasattr(found, 'dtype')
  if not is_array or found.shape or not tree.is_float(found):
    what = type(found).__name__
    what = f'{found.dtype}{list(found.shape)}' if is_array else what
    raise ValueError(
      f'{name}: loss_fn returns {what}, expected a float without axes, the '
      'mean loss of a batch'
    )
  return jnp.asarray(found)


def _split(
  params: types.Params, chosen: Chosen
) -> tuple[Direction, Callable[[Direction], types.Params]]:
  """Returns the chosen leaves, widened, and the function that inserts them."""
  leaves, structure = jax.tree.flatten(params)
  values = [
    tree.wide(jnp.asarray(x)) for x, c in zip(leaves, chosen.leaves) if c
  ]

  def rebuild(values: Direction) -> types.Params:
    rest = iter(values)
    found = [next(rest) if c else x for x, c in zip(leaves, chosen.leaves)]
    return jax.tree.unflatten(structure, found)

  return values, rebuild


def _add(x: Direction, y: Direction) -> Direction:
  return [a + b for a, b in zip(x, y)]
