"""The dimensions of products and reductions, by their roles."""

from typing import Any, NamedTuple

from wsl.align._find import axis_facts
from wsl.align._gauges import layout


class Contraction(NamedTuple):
  """The dimensions of a product of two arrays, by their roles.

  Attributes:
    contracted: pairs of dimensions of both operands.
    batch: triples of dimensions, of both operands and the result.
    free: pairs of a dimension of an operand and of the result.
    groups: dimensions of the second operand that index groups of rows.
  """

  contracted: list[tuple[layout.Dimension, layout.Dimension]]
  batch: list[tuple[layout.Dimension, layout.Dimension, layout.Dimension]]
  free: list[tuple[layout.Dimension, layout.Dimension]]
  groups: list[layout.Dimension]


def contraction(c: Any, step: axis_facts.Step) -> Contraction | None:
  """Returns the roles of the dimensions of a product.

  Args:
    c: the powers, or the types, of which the layouts are taken.
    step: a product, or a ragged product.

  Returns:
    The roles; None for arrays in pieces, or a ragged product whose groups are
    not of rows.
  """
  x, y, out = (c.blocks(v) for v in (*step.args[:2], step.results[0]))
  numbers = _numbers(step.eqn)
  if numbers is None or any(len(z.pieces) > 1 for z in (x, y, out)):
    return None
  (cx, cy), (bx, by), groups = numbers
  (a,), (b,), (r,) = x.pieces, y.pieces, out.pieces
  # The result has batch dimensions, then the free ones of both operands.
  free = [a[i] for i in range(len(a)) if i not in (*cx, *bx)]
  free += [b[j] for j in range(len(b)) if j not in (*cy, *by, *groups)]
  return Contraction(
    [(a[i], b[j]) for i, j in zip(cx, cy)],
    [(a[i], b[j], z) for i, j, z in zip(bx, by, r)],
    [*zip(free, r[len(bx) :], strict=True)],
    [b[j] for j in groups],
  )


def _numbers(eqn: Any) -> tuple[Any, Any, Any] | None:
  """Returns contracted axes, batch axes and axes of groups of a product."""
  if eqn.primitive.name == 'dot_general':
    return (*eqn.params['dimension_numbers'], ())
  numbers = eqn.params['ragged_dot_dimension_numbers']
  contract, batch = numbers.dot_dimension_numbers
  groups = numbers.rhs_group_dimensions
  if not groups or {*numbers.lhs_ragged_dimensions} & {*contract[0], *batch[0]}:
    return None
  return contract, batch, groups


class Reduced(NamedTuple):
  """The dimensions that a reduction removes and keeps, of one piece.

  Attributes:
    gone: the occurrences of atoms on reduced axes.
    kept: pairs of a dimension of the operand and of the result.
  """

  gone: list[layout.Spot]
  kept: list[tuple[layout.Dimension, layout.Dimension]]


def reduced(c: Any, step: axis_facts.Step) -> list[Reduced] | None:
  """Returns the dimensions that a reduction removes and keeps, by pieces.

  Args:
    c: the powers, or the types, of which the layouts are taken.
    step: a reduction.

  Returns:
    None if the pieces follow a reduced axis, or an axis is that of a mesh.
  """
  x, out = c.blocks(step.args[0]), c.blocks(step.results[0])
  axes = step.eqn.params['axes']
  if any(isinstance(i, str) for i in axes):
    return None
  if len(x.pieces) > 1 and (x.dim in axes or len(out.pieces) == 1):
    return None
  found = []
  for a, r in zip(x.pieces, out.pieces, strict=True):
    gone = [spot for i in axes for spot in layout.along(a[i])]
    kept = (a[i] for i in range(len(a)) if i not in axes)
    found.append(Reduced(gone, [*zip(kept, r)]))
  return found
