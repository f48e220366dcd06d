"""Records which axes a numerical test may free: pairs of an index and a lookup.

Where a rule cannot show that indices follow a permutation, for example because
equal scores are common, the pair of axes is a suspect that ``certification``
tests numerically.
"""

from collections.abc import Sequence

from jax.extend import core
import jax.numpy as jnp

from wsl.align._find import axis_facts, axis_tree


def propagate(
  facts: axis_facts.Facts,
  eqn: core.JaxprEqn,
  args: Sequence[axis_facts.Value],
  results: list[axis_facts.Value],
) -> list[axis_facts.Value]:
  """Propagates ``Value.indexes`` through an equation; records suspects.

  Args:
    facts: receives pairs of an axis and the axis it is looked up in.
    eqn: the equation.
    args: its operands.
    results: its results, by the rule of the primitive.

  Returns:
    The results; those of integer dtype index the same axes as the operands.
  """
  name, p = eqn.primitive.name, eqn.params
  indexes = tuple(axis for arg in args for axis in arg.indexes)
  if name == 'top_k':
    indexes = (args[0].axes[p.get('axis', -1)],)
  elif name in ('argmax', 'argmin'):
    indexes = tuple(args[0].axes[i] for i in p['axes'])
  elif name == 'sort' and len(args) > 1:
    indexes = (args[0].axes[p['dimension']],)
  if not indexes:
    return results
  for axis in _looked_up(eqn, args):
    # The rule of a lookup may have tied both already, or use the first alone.
    facts.suspects += [
      pair
      for x in indexes
      if x.size == axis.size
      for pair in ((x, axis), (x, x))
    ]
  return [
    result._replace(indexes=indexes) if _integer(var) else result
    for var, result in zip(eqn.outvars, results)
  ]


def _looked_up(
  eqn: core.JaxprEqn, args: Sequence[axis_facts.Value]
) -> Sequence[axis_tree.Axis]:
  """Returns the axes that an equation reads or writes at given indices."""
  name = eqn.primitive.name
  if name == 'eq':  # one-hot: indices == iota
    constants = [arg for arg in args if arg.constant is not None]
    return [axis for arg in constants for axis in arg.axes]
  if name == 'gather':
    dims = eqn.params['dimension_numbers'].start_index_map
    return [args[0].axes[i] for i in dims]
  if name.startswith('scatter'):
    dims = eqn.params['dimension_numbers'].scatter_dims_to_operand_dims
    return [args[0].axes[i] for i in dims]
  if name in ('dynamic_slice', 'dynamic_update_slice'):
    return args[0].axes
  return ()


def _integer(var: core.Var) -> bool:
  return jnp.issubdtype(getattr(var.aval, 'dtype', jnp.float32), jnp.integer)
