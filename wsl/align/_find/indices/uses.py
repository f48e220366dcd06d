"""Rules for elementwise primitives that take indices of an axis."""

from typing import Any

from jax.extend import core
import numpy as np

from wsl import jaxprs
from wsl.align._find import axis_facts, known_constants, refinement
from wsl.align._find.indices import sources
from wsl.align._find.rules import table

Results = list[axis_facts.Value] | None

_COMPUTED = 'its indices are used as numbers'


def compare(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Compares indices with iota, or with indices of the same axis."""
  shape = jaxprs.shape_of(eqn.outvars[0])
  if all(arg.index_of for arg in args):
    index = common(args)
    if index is None:
      return None
    plain = [arg._replace(index_of=None) for arg in args]
    tied: Any = table.RULES[eqn.primitive.name](facts, eqn, plain)
    if tied is None:
      return None
    # The product of two one-hot encodings, as ``dot_general``.
    columns = zip(*(arg.axes for arg in args))
    both = [x for x, y in columns if x.size == y.size]
    facts.record((*both, index.axis))
    for arg in args:
      facts.reduce((*arg.axes, index.axis), [len(arg.axes)])
    return [axis_facts.Value(tied[0])]
  which, other = args if args[0].index_of else args[::-1]
  if which.index_of is None:
    return None
  if len(which.axes) != len(other.axes):
    return None
  size = which.index_of.axis.size
  for d, n in enumerate(shape):
    flat = which.axes[d].size == 1 or d in which.traits.flat
    if n == size and flat and sources.iota(other, d, size):
      axes = [
        which.axes[e] if which.axes[e].size == m else other.axes[e]
        for e, m in enumerate(shape)
      ]
      axes[d] = which.index_of.axis
      if which.index_of.escapes:
        axis_facts.escape(which)
      return [axis_facts.Value(tuple(axes))]
  return None


def order(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Tests whether an index is negative: it never is."""
  name = eqn.primitive.name
  below = args[1] if name == 'lt' else args[0]
  if below.index_of or (args[0].index_of or args[1].index_of) is None:
    return None
  bound = known_constants.array_of(below.constant)
  if bound is None or (bound > 0).any():
    return None
  shape = jaxprs.shape_of(eqn.outvars[0])
  never = known_constants.Constant(shape, value=np.broadcast_to(False, shape))
  return [axis_facts.Value(axis_facts.fresh(shape), never)]


def arithmetic(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Computes with one index: the result no longer follows a permutation.

  It is harmless if nothing uses it: ``x[i]`` computes i + n in case i < 0.
  """
  found = [(arg, arg.index_of) for arg in args if arg.index_of is not None]
  which, old = found[0]
  if not all(arg is which or _uniform(arg) is not None for arg in args):
    return None
  if tuple(a.size for a in which.axes) != jaxprs.shape_of(eqn.outvars[0]):
    return None
  index = axis_facts.Index(old.axis, _COMPUTED)
  return [axis_facts.Value(which.axes, index_of=index)]


def select(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Selects between indices of one axis; constant choices need no tie."""
  which, *cases = args
  choice = _uniform(which)
  if choice is not None:
    return [cases[int(choice[0])]]
  index = common(cases)
  if which.index_of or index is None:
    return None
  plain = [arg._replace(index_of=None) for arg in args]
  for arg in plain:
    facts.operand(arg)
  tied: Any = table.RULES['select_n'](facts, eqn, plain)
  return None if tied is None else [axis_facts.Value(tied[0], index_of=index)]


def _uniform(value: axis_facts.Value) -> np.ndarray | None:
  """Returns the entry ``[1]`` of a constant with equal entries."""
  array = known_constants.array_of(value.constant)
  if array is None or not array.size or (array != array.flat[0]).any():
    return None
  return array.reshape(-1)[:1]


def common(args: axis_facts.Values) -> axis_facts.Index | None:
  """Returns the axis that all arguments index, after tying their axes."""
  found = [x for arg in args if (x := arg.index_of) and not x.escapes]
  if len(found) < len(args) or len({x.axis.size for x in found}) > 1:
    return None
  for x in found[1:]:
    refinement.tie(found[0].axis, x.axis)
  return found[0]
