"""Signs, scales, rotations, phases and linear maps, block by block."""

from collections.abc import Collection, Iterator, Sequence
import itertools
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _symmetry
from wsl.align._gauges import complex_tables

# Tables of actions by name, in the shapes of ``Symmetry.action_shape``; with
# permutations, an element of the symmetry group.
Gauge: TypeAlias = dict[str, types.Array]


def factors_of(plan: _symmetry.Plan) -> list[_blocks.Factors]:
  """Returns the factors of each block of a leaf, in the order of blocks."""
  return [
    tuple(itertools.chain(*segments)) for segments in itertools.product(*plan)
  ]


class Act(NamedTuple):
  """An action on one axis of one block of a leaf.

  Attributes:
    name: the key of its table.
    kind: of the action.
    block: the position of the block among those of the leaf.
    dim: the dimension of the block.
    power: see ``Power``.
    over: see ``Action``.
    unit: see ``Action``.
  """

  name: str
  kind: str
  block: int
  dim: int
  power: float
  over: tuple[str, ...] = ()
  unit: bool = False


def acts_of(
  symmetry: _symmetry.Symmetry, leaf: str, names: Collection[str]
) -> tuple[Act, ...]:
  """Returns how the named actions act on the blocks of a leaf."""
  plan = symmetry.plan(leaf)
  blocks = [*itertools.product(*(range(len(axis)) for axis in plan))]
  found = []
  for action in symmetry.actions:
    if action.name not in names:
      continue
    for p in action.powers:
      if p.leaf != leaf:
        continue
      for k, segments in enumerate(blocks):
        if segments[p.axis] == p.segment:
          before = zip(plan[: p.axis], segments[: p.axis])
          dim = sum(len(axis[s]) for axis, s in before) + p.factor
          rest = action.over, action.unit
          found.append(Act(action.name, action.kind, k, dim, p.power, *rest))
  return tuple(found)


def with_acts(
  blocks: Sequence[tuple[Any, _blocks.Factors]], acts: Sequence[Act]
) -> Iterator[tuple[Any, _blocks.Factors, tuple[Act, ...]]]:
  """Yields each block of a leaf, its factors, and the actions on it."""
  for k, (block, factors) in enumerate(blocks):
    yield block, factors, tuple(a for a in acts if a.block == k)


def axes_of(act: Act, factors: _blocks.Factors) -> list[int]:
  """Returns the axes of a block that index the table of an action on it.

  Of rotations and linear maps the last one is the axis that is mixed.
  """
  names = [factor.name for factor in factors]
  if act.kind == 'phase':
    return [*map(names.index, act.over)]
  return [*map(names.index, factors[act.dim].outer), act.dim]


def identity_actions(
  symmetry: _symmetry.Symmetry, names: Collection[str]
) -> dict[str, np.ndarray]:
  """Returns the float64 tables of the identity of some actions."""
  found = {}
  for name in names:
    shape = symmetry.action_shape(name)
    kind = symmetry.action[name].kind
    one: np.ndarray = np.ones(())
    if kind == 'phase':
      one = np.asarray([1.0, 0.0])
    elif kind in ('rotation', 'linear'):
      one = np.eye(shape[-1])
    found[name] = np.broadcast_to(one, shape)
  return found


def act(
  block: Any,
  factors: _blocks.Factors,
  acts: tuple[Act, ...],
  tables: Gauge,
  xp: Any = jnp,
) -> Any:
  """Applies actions to one block ``[*sizes of factors]``.

  Args:
    block: the block, in float32 or wider.
    factors: its factors.
    acts: the actions on it.
    tables: by the names of actions.
    xp: ``numpy`` on the host, else ``jax.numpy``.
  """
  for one in acts:
    places = axes_of(one, factors)
    dual = one.kind == 'linear' and one.power == -1
    key = dual_of(one.name) if dual else one.name
    table = tables[key].astype(block.dtype)
    if one.kind in ('sign', 'scale'):
      if one.power != 1:
        table = table**one.power
      block = block * _blocks.spread(table, places, block.ndim, xp)
    elif one.kind == 'phase':
      numbers = complex_tables.acting(table, one.power, one.unit, xp)
      block = complex_tables.multiply(block, numbers, places, one.dim, xp)
    else:
      block = multiply(block, table, places, xp)
  return block


def dual_of(name: str) -> str:
  """Returns the key of the inverse transpose of a linear map."""
  return f'{name}, dual'


def with_duals(symmetry: _symmetry.Symmetry, gauge: Gauge, xp: Any) -> Gauge:
  """Adds the inverse transpose of each linear map, with which covectors move.

  Args:
    symmetry: the symmetry.
    gauge: tables by name.
    xp: ``numpy`` on the host, else ``jax.numpy``.
  """
  found, last = dict(gauge), None
  for action in symmetry.actions:
    if action.kind == 'linear' and action.name in gauge:
      table = in_turn(gauge[action.name], last)
      last = xp.matrix_transpose(xp.linalg.inv(table))
      found[dual_of(action.name)] = last
  return found


def in_turn(x: Any, last: Any) -> Any:
  """Returns the operand of a decomposition; those of a trace follow another."""
  if last is None or not tree.is_traced([x, last]):
    return x
  return tree.after(x, last)


def multiply(
  block: types.Array, table: types.Array, moved: list[int], xp: Any
) -> types.Array:
  """Multiplies the last of some axes by matrices that depend on the others."""
  # [*outer, i, j] times [*outer, j, rest]: bring the axes to the front.
  front = xp.moveaxis(block, moved, range(len(moved)))
  flat = front.reshape(*front.shape[: len(moved)], -1)
  result = matmul(table, flat).reshape(front.shape)
  return xp.moveaxis(result, range(len(moved)), moved)


def matmul(x: Any, y: Any) -> Any:
  """Multiplies matrices, on the host or not."""
  host = isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
  return np.matmul(x, y) if host else tree.matmul(x, y)


def inverse(
  symmetry: _symmetry.Symmetry, name: str, table: Any, last: Any, xp: Any
) -> Any:
  """Returns the table of the inverse of an action; ``last`` is another one."""
  kind = symmetry.action[name].kind
  if kind == 'sign':
    return table
  if kind == 'scale':
    return 1 / table
  if kind == 'rotation':
    return xp.matrix_transpose(table)
  if kind == 'phase':
    return complex_tables.inverse(table, xp)
  return xp.linalg.inv(table if xp is np else in_turn(table, last))


def times(symmetry: _symmetry.Symmetry, name: str, x: Any, y: Any) -> Any:
  """Returns the table of the action y after x."""
  kind = symmetry.action[name].kind
  if kind in ('sign', 'scale'):
    return y * x
  if kind == 'phase':
    host = isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
    return complex_tables.product(y, x, np if host else jnp)
  return matmul(y, x)
