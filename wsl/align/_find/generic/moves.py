"""Traits of arrays whose entries are moved, repeated or selected."""

from collections.abc import Callable, Sequence

from jax.extend import core
import jax.numpy as jnp
import numpy as np

from wsl import jaxprs
from wsl.align._find.generic import arithmetic
from wsl.align._find.generic import operands as operands_lib
from wsl.align._find.generic import traits as traits_lib
from wsl.align._find.rules import reshape as reshape_rule


def squeeze(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """Drops axes of size 1."""
  dims = eqn.params['dimensions']
  return traits_lib.drop(operands[0].traits, frozenset(dims))


def transpose(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """Permutes the axes."""
  order = tuple(eqn.params['permutation'])
  move = lambda dims: frozenset(order.index(d) for d in dims)
  return traits_lib.map_axes(operands[0].traits, move, move, move)


def broadcast_in_dim(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """Repeats entries along new axes, and along those of size 1."""
  x, shape = operands[0], jaxprs.shape_of(eqn.outvars[0])
  place = eqn.params['broadcast_dimensions']
  kept = {i for i, n in zip(place, x.shape) if n == shape[i]}
  move = lambda dims: frozenset(place[d] for d in dims) & kept
  repeated = frozenset(range(len(shape))) - kept
  flat = lambda dims: move(dims) | repeated
  return traits_lib.map_axes(x.traits, move, move, flat)


def reshape(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """Splits axes; merges those that all have a property of subarrays."""
  if eqn.params['dimensions'] is not None:
    return traits_lib.Traits()
  old, new = operands[0].shape, jaxprs.shape_of(eqn.outvars[0])
  if 0 in old:
    return traits_lib.Traits()
  groups = [
    ({i for i in a if old[i] > 1}, {j for j in b if new[j] > 1})
    for a, b in reshape_rule.independent_groups(old, new)
  ]

  def move(most: int) -> Callable[[traits_lib.Dims], traits_lib.Dims]:
    return lambda dims: frozenset(
      j for a, b in groups if a <= dims and len(a) <= most for j in b
    )

  many = move(len(old))
  return traits_lib.map_axes(operands[0].traits, move(1), many, many)


def part(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """A subarray keeps all traits."""
  return operands[0].traits


def concatenate(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """Keeps the traits that all operands have along the other axes."""
  along = frozenset([eqn.params['dimension']])
  traits = [x.traits for x in operands]
  common = lambda sets: frozenset.intersection(*sets) - along
  return traits_lib.Traits(
    nonzero=all(map(operands_lib.nonzero, operands)),
    distinct=common([t.distinct for t in traits]),
    alive=common([t.alive for t in traits]),
    flat=common([t.flat for t in traits]),
  )


def select(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """A choice between nonzero entries is nonzero.

  Distinct entries stay distinct if one of them is replaced by an infinity, or
  by zero if none is zero.
  """
  nonzero = all(map(operands_lib.nonzero, operands[1:]))
  found = traits_lib.Traits(nonzero=nonzero)
  if len(operands) != 3:
    return found
  shape = jaxprs.shape_of(eqn.outvars[0])
  test, no, yes = (operands_lib.broadcast(x, shape) for x in operands)
  for kept, other, once in (
    (no, yes, test.traits.hot),
    (yes, no, test.traits.cold),
  ):
    axes = (
      kept.traits.distinct & once if kept.traits.bounded else traits_lib.NONE
    )
    if operands_lib.uniform(other, 0) and kept.traits.nonzero:
      found = found._replace(distinct=found.distinct | axes)
    if operands_lib.uniform(other, -np.inf, np.inf):
      found = found._replace(masked=found.masked | axes)
  return found


def compare(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """One of distinct constants equals a value, at most; 0 and 1 are tested."""
  name, shape = eqn.primitive.name, jaxprs.shape_of(eqn.outvars[0])
  x, y = (operands_lib.broadcast(operand, shape) for operand in operands)
  if name == 'eq':
    hot = x.traits.flat & operands_lib.distinct(y)
    hot |= y.traits.flat & operands_lib.distinct(x)
    return traits_lib.Traits(hot=hot)
  zero, other = (x, y) if name == 'lt' else (y, x)
  if name in ('gt', 'lt', 'ne') and operands_lib.uniform(zero, 0):
    return traits_lib.Traits(hot=other.traits.hot, cold=other.traits.cold)
  return traits_lib.Traits()


def negate(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """The negation of booleans exchanges True and False; of integers, bits."""
  x = operands[0].traits
  if not jnp.issubdtype(getattr(eqn.outvars[0].aval, 'dtype', int), jnp.bool_):
    return traits_lib.Traits(flat=x.flat)
  return traits_lib.Traits(flat=x.flat, hot=x.cold, cold=x.hot)


def ranked(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """Ranked entries are entries of the operand."""
  return traits_lib.Traits(nonzero=operands[0].traits.nonzero)


def gather(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """Entries of the operand, of different places within a window."""
  x, index = operands
  dn, fill = eqn.params['dimension_numbers'], eqn.params['fill_value']
  if fill is not None and np.isfinite(fill):
    return traits_lib.Traits()
  windows = frozenset(dn.offset_dims)
  whole = frozenset(range(len(x.shape)))
  table = arithmetic.independent(x.traits.joint, index.traits)
  entries = {m: windows for m, dims in table.items() if dims == whole}
  return traits_lib.Traits(
    nonzero=x.traits.nonzero, joint=entries, linear=entries
  )
