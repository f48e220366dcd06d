"""The equations of primitives that cut or join ranges of dimensions.

Each unit of an atom has its own power, so a range has powers if it consists of
whole segments; else the powers along the dimension are 0.
"""

from collections.abc import Sequence

from wsl.align._find import axis_facts, known_constants
from wsl.align._find.rules import indexing
from wsl.align._gauges import layout
from wsl.align._gauges.powers import charges as charges_lib

Charges = charges_lib.Charges


def slice_dimensions(c: Charges, step: axis_facts.Step) -> bool:
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
  c.zero(layout.along(a[axis]))
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
      c.zero([*layout.along(b), *layout.along(s)])
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
    c.zero(layout.along(result[axis]))
  for k, value in enumerate(values):
    if known_constants.is_zero(value.constant):
      continue
    if value.constant is not None:
      c.pin(value)
    for i, (a, r) in enumerate(zip(c.blocks(value).pieces[0], result)):
      if i != axis:
        c.equal(a, r)
      elif parts is None:
        c.zero(layout.along(a))
      else:
        c.equal(a, parts[k])
  return True


def pad(c: Charges, step: axis_facts.Step) -> bool:
  """Keeps dimensions that are not padded; others keep their segments."""
  value, fill = step.args
  x, out = c.blocks(value), c.blocks(step.results[0])
  if len(x.pieces) > 1 or len(out.pieces) > 1:
    return False
  if not known_constants.is_zero(fill.constant):  # zeros have any power
    c.pin(value)
  config = step.eqn.params['padding_config']
  for a, r, axis, (low, high, inner) in zip(
    x.pieces[0], out.pieces[0], value.axes, config
  ):
    cut = None
    if min(low, high, inner) >= 0 and not inner:
      cut = layout.cut(r, [n for n in (low, axis.size, high) if n])
    if cut is None:
      c.zero([*layout.along(a), *layout.along(r)])
    else:
      c.equal(a, cut[1 if low else 0])
  return True
