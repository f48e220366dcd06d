"""Chooses the rule of an equation that returns or takes indices."""

from collections.abc import Callable
from typing import Any

from jax.extend import core
import jax.numpy as jnp

from wsl import jaxprs
from wsl.align._find import axis_facts, axis_tree, refinement
from wsl.align._find.indices import lookups, sources, uses
from wsl.align._find.rules import elementwise, table

Results = list[axis_facts.Value] | None

_MOVES = frozenset({
  'broadcast_in_dim', 'dynamic_slice', 'expand_dims', 'gather', 'reshape',
  'rev', 'slice', 'split', 'squeeze', 'transpose',
}) | jaxprs.CASTS  # fmt: skip


def apply(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Applies the rule of an equation that returns or takes indices.

  Returns:
    The results; ``None`` if there are no indices, or if they are used as
    numbers.
  """
  name = eqn.primitive.name
  if not any(arg.index_of or arg.components for arg in args):
    make = _SOURCES.get(name)
    return make(facts, eqn, args) if make is not None else None
  if name == 'sort' and not args[0].index_of and not args[0].components:
    return sources.sort(facts, eqn, args)
  if name in elementwise.UNCHANGED:
    return [*args]
  if name == 'concatenate':
    return _concatenate(facts, eqn, args)
  if any(arg.components for arg in args) and name != 'gather':
    return lookups.scatter(facts, eqn, args) if 'scatter' in name else None
  use = _USES.get(name)
  found = use(facts, eqn, args) if use is not None else None
  if found is None and 'scatter' in name:
    found = lookups.scatter(facts, eqn, args)
  if found is None and name in _MOVES:
    found = _move(facts, eqn, args)
  return found


def _move(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Moves indices as the rule of the primitive moves any entries."""
  index = args[0].index_of
  if index is None or any(arg.index_of for arg in args[1:]):
    return None
  if not _integer(eqn.outvars[0]):
    return None
  # Indices count as their one-hot encoding: mixed entries have one axis more.
  count = len(facts.mixed)
  plain = [args[0]._replace(index_of=None), *args[1:]]
  for arg in plain:
    facts.operand(arg)
  moved = table.RULES[eqn.primitive.name](facts, eqn, plain)
  if moved is None:
    return None
  for axis, tensor in facts.mixed[count:]:
    facts.mixed.append((axis, tensor._replace(axes=(*tensor.axes, index.axis))))
  axes = [r.axes if isinstance(r, axis_facts.Value) else r for r in moved]
  return [axis_facts.Value(x, index_of=index) for x in axes]


def _concatenate(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Joins indices of one axis, or the components of a longer index."""
  i, ndim = eqn.params['dimension'], len(jaxprs.shape_of(eqn.outvars[0]))
  if any(arg.components for arg in args):
    return None
  if i == ndim - 1 and all(arg.axes[i].size == 1 for arg in args):
    axes = next(arg.axes for arg in args if arg.index_of)
    for arg in args:
      if arg.constant is None:
        for a, b in zip(axes[:-1], arg.axes[:-1]):
          refinement.tie(a, b)
    last = axis_tree.Axis(len(args), 'the components of an index')
    return [axis_facts.Value((*axes[:-1], last), components=tuple(args))]
  index = uses.common(args)
  if index is None:
    return None
  plain = [arg._replace(index_of=None) for arg in args]
  moved: Any = table.RULES['concatenate'](facts, eqn, plain)
  return [axis_facts.Value(axes, index_of=index) for axes in moved]


def _integer(var: core.Var) -> bool:
  """Returns whether a variable holds integers."""
  dtype = getattr(var.aval, 'dtype', jnp.float32)
  return bool(jnp.issubdtype(dtype, jnp.integer))


Use = Callable[[axis_facts.Facts, core.JaxprEqn, axis_facts.Values], Results]
_SOURCES: dict[str, Use] = {
  'argmax': sources.arg_reduction,
  'argmin': sources.arg_reduction,
  'sort': sources.sort,
  'top_k': sources.top_k,
}
_USES: dict[str, Use] = {
  'add': uses.arithmetic,
  'dynamic_slice': lookups.dynamic_slice,
  'eq': uses.compare,
  'gather': lookups.gather,
  'gt': uses.order,
  'lt': uses.order,
  'ne': uses.compare,
  'select_n': uses.select,
}
