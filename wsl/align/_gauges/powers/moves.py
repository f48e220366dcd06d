"""The equations of primitives that move entries without changing them."""

from collections.abc import Callable, Sequence
from typing import Any

from wsl import jaxprs
from wsl.align._find import axis_facts
from wsl.align._find.rules import indexing
from wsl.align._find.rules import reshape as reshape_lib
from wsl.align._gauges import layout
from wsl.align._gauges.powers import charges as charges_lib
from wsl.align._gauges.powers import products

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
          c.zero(products.every(dimension))
      for place, dimension in zip(old, r, strict=True):
        if place is None:
          new(c, products.every(dimension))
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


def sliced(c: Charges, step: axis_facts.Step) -> bool:
  """Keeps whole segments of the sliced dimensions."""
  p = step.eqn.params
  limits = list(zip(p['start_indices'], p['limit_indices']))
  gaps = [i for i, n in enumerate(p['strides'] or ()) if n != 1]
  return _part(c, step.args[0], step.results[0], limits, gaps)


def split(c: Charges, step: axis_facts.Step) -> bool:
  """Distributes the segments of one dimension over the results."""
  axis, start = step.eqn.params['axis'], 0
  sizes = [a.size for a in step.args[0].axes]
  for result, size in zip(step.results, step.eqn.params['sizes']):
    limits = [(0, n) for n in sizes]
    limits[axis] = start, start + size
    if not _part(c, step.args[0], result, limits):
      return False
    start += size
  return True


def unstack(c: Charges, step: axis_facts.Step) -> bool:
  """Gives one index of a dimension to each result."""
  axis = step.eqn.params['axis']
  return all(
    take(c, step.args[0], result, indexing.Taken(axis, k, k + 1, True))
    for k, result in enumerate(step.results)
  )


def take(
  c: Charges,
  value: axis_facts.Value,
  result: axis_facts.Value,
  taken: indexing.Taken,
) -> bool:
  """Equates a result with a range of one dimension of an operand."""
  axis = taken.axis
  limits = [(0, a.size) for a in value.axes]
  limits[axis] = taken.start, taken.stop
  if not taken.dropped:
    return _part(c, value, result, limits)
  x, out = c.blocks(value), c.blocks(result)
  if len(x.pieces) > 1:
    if axis != x.dim:
      return False
    piece = layout.between(x, *limits[axis])
    if piece is None:
      return False
    x = piece
  if len(x.pieces) != 1 or len(out.pieces) != 1:
    return False
  (a,) = x.pieces
  c.zero(products.every(a[axis]))
  for dims in zip((*a[:axis], *a[axis + 1 :]), out.pieces[0], strict=True):
    c.equal(*dims)
  return True


def _part(
  c: Charges,
  value: axis_facts.Value,
  result: axis_facts.Value,
  limits: Sequence[tuple[int, int]],
  gaps: Sequence[int] = (),
) -> bool:
  """Equates a result with a range of each dimension of an operand.

  Powers are 0 along the dimensions ``gaps``, of which not all indices are kept.
  """
  x, out = c.blocks(value), c.blocks(result)
  sizes = [a.size for a in value.axes]
  if len(x.pieces) > 1:
    whole = all(
      limit == (0, n) or i == x.dim
      for i, (limit, n) in enumerate(zip(limits, sizes))
    )
    taken = layout.between(x, *limits[x.dim])
    if not whole or taken is None or gaps:
      return False
    spread = layout.like(out, taken)
    if spread is None:
      return False
    for a, r in zip(taken.pieces, spread.pieces):
      for dims in zip(a, r):
        c.equal(*dims)
    return True
  if len(out.pieces) > 1:
    return False
  rows = zip(x.pieces[0], out.pieces[0], limits, sizes)
  for i, (b, s, (start, stop), n) in enumerate(rows):
    cut = layout.cut(b, [k for k in (start, stop - start, n - stop) if k])
    if cut is None or start == stop or i in gaps:
      c.zero([*products.every(b), *products.every(s)])
    else:
      c.equal(cut[1 if start else 0], s)
  return True


def concatenate(c: Charges, step: axis_facts.Step) -> bool:
  """Joins segments along one dimension; others have equal powers."""
  axis, out = step.eqn.params['dimension'], c.blocks(step.results[0])
  values = [v for v in step.args if v.axes[axis].size]
  if len(out.pieces) > 1 or any(len(c.blocks(v).pieces) > 1 for v in values):
    return False
  result = out.pieces[0]
  parts = layout.cut(result[axis], [v.axes[axis].size for v in values])
  if parts is None:  # an operand is a part of a segment
    c.zero(products.every(result[axis]))
  for k, value in enumerate(values):
    if charges_lib.is_zero(value):
      continue
    if value.constant is not None:
      c.pin(value)
    for i, (a, r) in enumerate(zip(c.blocks(value).pieces[0], result)):
      if i != axis:
        c.equal(a, r)
      elif parts is None:
        c.zero(products.every(a))
      else:
        c.equal(a, parts[k])
  return True


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


def pad(c: Charges, step: axis_facts.Step) -> bool:
  """Keeps dimensions that are not padded; others keep their segments."""
  value, fill = step.args
  x, out = c.blocks(value), c.blocks(step.results[0])
  if len(x.pieces) > 1 or len(out.pieces) > 1:
    return False
  if not charges_lib.is_zero(fill):
    c.pin(value)
  config = step.eqn.params['padding_config']
  for a, r, axis, (low, high, inner) in zip(
    x.pieces[0], out.pieces[0], value.axes, config
  ):
    cut = None
    if min(low, high, inner) >= 0 and not inner:
      cut = layout.cut(r, [n for n in (low, axis.size, high) if n])
    if cut is None:
      c.zero([*products.every(a), *products.every(r)])
    else:
      c.equal(a, cut[1 if low else 0])
  return True
