"""Rules for primitives that return indices of an axis."""

from jax.extend import core
import numpy as np

from wsl import jaxprs
from wsl.align._find import axis_facts, axis_tree, known_constants, refinement

Results = list[axis_facts.Value] | None


def top_k(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Returns the largest values, in descending order, and their indices."""
  x = facts.operand(args[0])
  i = eqn.params.get('axis', len(x) - 1) % len(x)
  k = jaxprs.shape_of(eqn.outvars[0])[i]
  facts.index_dependent(x[i], x)
  axes = (*x[:i], axis_tree.Axis(k, 'ranked by value'), *x[i + 1 :])
  index = _index(eqn, args[0], i)
  return [axis_facts.Value(axes), axis_facts.Value(axes, index_of=index)]


def arg_reduction(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Returns the index of the largest or smallest entry."""
  x, dims = facts.operand(args[0]), eqn.params['axes']
  if len(dims) != 1:
    return None
  i = int(dims[0])
  facts.reduce(x, (i,))
  index = _index(eqn, args[0], i)
  return [axis_facts.Value((*x[:i], *x[i + 1 :]), index_of=index)]


def sort(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Sorts arrays by a key without equal entries; sorted iota is an index."""
  i, key = eqn.params['dimension'], args[0]
  index = _index(eqn, key, i)
  if len(args) == 1 or eqn.params['num_keys'] > 1:
    return None
  x = facts.operand(key)
  iotas = [iota(arg, i, x[i].size) for arg in args]
  if index.escapes and not any(iotas):
    return None
  rank = axis_tree.Axis(x[i].size, 'ranked by value')
  found = []
  for arg, counts in zip(args, iotas):
    axes = x
    if not counts:
      # Payloads that are indices themselves keep their axis.
      axes = facts.operand(arg._replace(index_of=None))
      for a, b in zip(x, axes):
        refinement.tie(a, b)
      if index.escapes:
        axis_tree.pin(x[i], index.escapes)
    held = index if counts else arg.index_of
    one_hot = () if held is None else (held.axis,)
    facts.index_dependent(axes[i], (*axes, *one_hot))
    moved = (*axes[:i], rank, *axes[i + 1 :])
    found.append(axis_facts.Value(moved, index_of=held))
  return found


def _index(
  eqn: core.JaxprEqn, scores: axis_facts.Value, i: int
) -> axis_facts.Index:
  """Returns the index of an axis that scores along it select."""
  name = eqn.primitive.name
  ties = f'{name} along it breaks ties by position, and ties may be common'
  traits = scores.traits
  distinct = i in traits.masked or (i in traits.distinct and traits.bounded)
  return axis_facts.Index(scores.axes[i], '' if distinct else ties)


def iota(value: axis_facts.Value, dim: int, size: int) -> bool:
  """Returns whether a constant counts along an axis and along no other."""
  array = known_constants.array_of(value.constant)
  if array is None or array.ndim <= dim or array.shape[dim] != size:
    return False
  lines = np.moveaxis(array, dim, -1)
  return array.dtype.kind in 'iu' and bool((lines == np.arange(size)).all())
