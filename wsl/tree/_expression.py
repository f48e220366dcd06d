"""What an expression on demand is made of, seen without reading anything."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from wsl.tree import _on_demand


def inputs(leaf: Any) -> list[Any]:
  """Returns the stored leaves and arrays of an expression, each once."""
  seen: dict[int, Any] = {}

  def visit(node: Any) -> Iterator[Any]:
    if id(node) in seen:
      return
    seen[id(node)] = node
    if isinstance(node, _on_demand.Computed):
      for child in jax.tree.leaves((node.operands, node.hyper)):
        yield from visit(child)
    else:
      yield node

  return list(visit(leaf))


def spans_processes(leaf: Any) -> bool:
  """Says whether reading a leaf needs every process of the run."""
  return any(
    not where.is_fully_addressable
    for where in map(_sharding, inputs(leaf))
    if where is not None
  )


def _sharding(node: Any) -> jax.sharding.Sharding | None:
  if isinstance(node, _on_demand.Stored):
    node = node.fetch
  return getattr(node, 'sharding', None)


def evaluate(leaf: Any, nodes: Sequence[Any], values: Sequence[Any]) -> Any:
  """Computes an expression with ``values`` in the place of its inputs.

  Args:
    leaf: a leaf on demand.
    nodes: inputs of it.
    values: what to take for each of them; may be traced.
  """
  done = {id(node): value for node, value in zip(nodes, values)}

  def value(node: Any) -> Any:
    if isinstance(node, _on_demand.Computed) and id(node) not in done:
      operands, hyper = jax.tree.map(value, (node.operands, node.hyper))
      done[id(node)] = _on_demand.apply_kernel(node.kernel, *operands, **hyper)
    return done.get(id(node), node)

  return value(leaf)
