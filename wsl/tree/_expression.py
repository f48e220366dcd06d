"""Inspection of leaves on demand as expressions, without reading them.

A ``Computed`` leaf is a directed acyclic graph: its nodes apply kernels, its
inputs are stored leaves and arrays. Rooms above ``tree`` plan and execute reads
by these functions, and do not access the parts of a ``Computed`` directly.
"""

from collections.abc import Sequence
from typing import Any

import jax

from wsl.tree import _nodes, _on_demand


def inputs(leaf: Any) -> list[Any]:
  """Returns the stored leaves and arrays that an expression depends on.

  Args:
    leaf: an array, or a leaf on demand.

  Returns:
    The inputs in the order of their first use, each leaf once; every number
    among the hyperparameters is an input too.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import tree
    >>> x = tree.defer(jnp.ones(2))
    >>> square = tree.apply_kernel(jnp.multiply, x, x)
    >>> inputs(square) == [x]
    True
  """
  if not isinstance(leaf, _nodes.Computed):
    return [leaf]
  _, found, kinds = leaf.linear
  return found if None not in kinds else jax.tree.leaves(found)


def spans_processes(*leaves: Any) -> bool:
  """Returns True if reading the leaves needs every process of the run.

  That is so if any input is sharded over devices of several processes: they
  must then read it together, in the same order. An input that several leaves
  share, such as a statistic over all of them, is visited once.

  Args:
    *leaves: arrays, or leaves on demand.

  Returns:
    Whether any input is not fully addressable from this process.

  Example:
    >>> import jax.numpy as jnp
    >>> spans_processes(jnp.ones(2))
    False
  """
  pending, seen = list(leaves), dict[int, Any]()
  while pending:
    for node in inputs(pending.pop()):
      if id(node) not in seen:
        seen[id(node)] = node
        if isinstance(node, _nodes.Statistic):
          pending += node.over
        elif _spans(node):
          return True
  return False


def _spans(node: Any) -> bool:
  """Returns True if a stored leaf or array is sharded over processes."""
  if isinstance(node, _nodes.Stored):
    node = node.fetch if node.array is None else node.array
  sharding = getattr(node, 'sharding', None)
  return sharding is not None and not sharding.is_fully_addressable


def evaluate(leaf: Any, nodes: Sequence[Any], values: Sequence[Any]) -> Any:
  """Evaluates an expression with values substituted for its inputs.

  Args:
    leaf: an array, or a leaf on demand.
    nodes: some of ``inputs(leaf)``.
    values: the value of each of them; may be traced.

  Returns:
    The result; inputs that are not among ``nodes`` are used as they are.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import tree
    >>> x = tree.defer(jnp.ones(2))
    >>> square = tree.apply_kernel(jnp.multiply, x, x)
    >>> evaluate(square, [x], [jnp.full(2, 3.0)]).tolist()
    [9.0, 9.0]
  """
  done = {id(node): value for node, value in zip(nodes, values)}

  def value(node: Any) -> Any:
    # A node that occurs twice is evaluated once.
    if isinstance(node, _nodes.Computed) and id(node) not in done:
      operands, hyper = jax.tree.map(value, (node.operands, node.hyper))
      done[id(node)] = _on_demand.apply_kernel(node.kernel, *operands, **hyper)
    return done.get(id(node), node)

  return value(leaf)
