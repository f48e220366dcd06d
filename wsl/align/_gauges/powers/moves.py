"""The equations of primitives that move entries without changing them."""

from collections.abc import Callable, Sequence
from typing import Any

from wsl import jaxprs
from wsl.align._find import axis_facts
from wsl.align._find.rules import reshape as reshape_lib
from wsl.align._gauges import layout
from wsl.align._gauges.powers import charges as charges_lib

Charges = charges_lib.Charges
Rule = Callable[[Charges, axis_facts.Step], bool]


def moved(
  places: Callable[[Any, int], Sequence[int | None]],
  new: Callable[[Any, Any], None] = lambda c, spots: c.zero(spots),
) -> Rule:
  """Moves whole dimensions: ``places`` gives the operand's, None if new."""

  def rule(c: Charges, step: axis_facts.Step) -> bool:
    x, out = c.blocks(step.args[0]), c.blocks(step.results[0])
    if len(x.pieces) != len(out.pieces):
      return False
    for a, r in zip(x.pieces, out.pieces):
      old = places(step.eqn, len(a))
      for i, dimension in enumerate(a):
        if i not in old:
          c.zero(layout.along(dimension))
      for place, dimension in zip(old, r, strict=True):
        if place is None:
          new(c, layout.along(dimension))
        else:
          c.equal(a[place], dimension)
    return True

  return rule


def repeated(c: Any, spots: Any) -> None:
  """Marks occurrences along which entries are repeated."""
  c.repeat(spots)


def transposed(eqn: Any, rank: int) -> list[int | None]:
  """Returns the operand's dimension of each dimension of the result."""
  return list(eqn.params['permutation'])


def squeezed(eqn: Any, rank: int) -> list[int | None]:
  """Returns the dimensions that are kept."""
  return [i for i in range(rank) if i not in eqn.params['dimensions']]


def expanded(eqn: Any, rank: int) -> list[int | None]:
  """Returns the operand's dimensions, None for new ones."""
  count = len(jaxprs.shape_of(eqn.outvars[0]))
  rest = iter(range(rank))
  dims = eqn.params['dimensions']
  return [None if k in dims else next(rest) for k in range(count)]


def broadcast(eqn: Any, rank: int) -> list[int | None]:
  """Returns the operand's dimensions, None for new and repeated ones."""
  shape = eqn.params['shape']
  old = jaxprs.shape_of(eqn.invars[0])
  out: list[int | None] = [None] * len(shape)
  for i, k in enumerate(eqn.params['broadcast_dimensions']):
    out[k] = i if old[i] == shape[k] else None
  return out


def same_but(axes: Callable[[Any], Sequence[int]]) -> Rule:
  """Powers are 0 along some dimensions and kept along others."""

  def places(eqn: Any, rank: int) -> list[int | None]:
    return [None if i in axes(eqn) else i for i in range(rank)]

  return moved(places)


def transformed(eqn: Any) -> range:
  """Returns the axes of a Fourier transform, the last ones."""
  rank = len(jaxprs.shape_of(eqn.invars[0]))
  return range(rank - len(eqn.params['fft_lengths']), rank)


def reshape(c: Charges, step: axis_facts.Step) -> bool:
  """Equates the occurrences of atoms in the order of the entries."""
  x, out = c.blocks(step.args[0]), c.blocks(step.results[0])
  if len(step.args) > 1 or step.eqn.params['dimensions'] is not None:
    return False
  old = jaxprs.shape_of(step.eqn.invars[0])
  new = jaxprs.shape_of(step.eqn.outvars[0])
  for before, after in reshape_lib.independent_groups(old, new):
    if len(x.pieces) == len(out.pieces):
      for a, r, n, m in zip(x.pieces, out.pieces, x.sizes, out.sizes):
        one = layout.Layout((a,), x.dim, (n,)), before, old
        two = layout.Layout((r,), out.dim, (m,)), after, new
        c.equal(layout.joined(*one)[0], layout.joined(*two)[0])
      continue
    for xs in layout.joined(x, before, old):
      for ys in layout.joined(out, after, new):
        c.equal(xs, ys)
  return True
