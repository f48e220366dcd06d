"""The equations of primitives that read or write at computed positions."""

from wsl.align._find import axis_facts, known_constants
from wsl.align._find.rules import indexing
from wsl.align._gauges import layout
from wsl.align._gauges.powers import charges as charges_lib
from wsl.align._gauges.powers import moves, ranges

Charges = charges_lib.Charges


def update(c: Charges, step: axis_facts.Step) -> bool:
  """Writes an update of equal powers, 0 where it fills a dimension partly."""
  whole, new = step.args[:2]
  for index in step.args[2:]:
    c.pin(index)
  values = [v for v in (whole, new) if not known_constants.is_zero(v.constant)]
  if any(len(c.blocks(v).pieces) > 1 for v in (*values, step.results[0])):
    return False
  (r,) = c.blocks(step.results[0]).pieces
  for value in values:
    if value.constant is not None:
      c.pin(value)
    (a,) = c.blocks(value).pieces
    for i, dims in enumerate(zip(a, r)):
      if whole.axes[i].size == new.axes[i].size:
        c.equal(*dims)
      else:
        c.zero([s for d in dims for s in layout.along(d)])
  return True


def scatter(c: Charges, step: axis_facts.Step) -> bool:
  """Writes or adds slices that are whole along some dimensions."""
  numbers = step.eqn.params['dimension_numbers']
  whole, index, new = step.args
  c.pin(index)
  values = [v for v in (whole, new) if not known_constants.is_zero(v.constant)]
  if any(len(c.blocks(v).pieces) > 1 for v in (*values, step.results[0])):
    return False
  (r,) = c.blocks(step.results[0]).pieces
  by_index = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
  windows = [i for i in range(len(r)) if i not in by_index]
  pairs = list(zip(windows, numbers.update_window_dims))
  kept = [
    (i, j) for i, j in pairs if whole.axes[i].size == new.axes[j].size
  ]  # the others start at computed positions
  for value, side in ((whole, 0), (new, 1)):
    if value not in values:
      continue
    if value.constant is not None:
      c.pin(value)
    (a,) = c.blocks(value).pieces
    own = [pair[side] for pair in kept]
    for pair in kept:
      c.equal(a[pair[side]], r[pair[0]])
    for k, dimension in enumerate(a):
      if k not in own:
        c.zero(layout.along(dimension))
  for i, dimension in enumerate(r):
    if i not in [pair[0] for pair in kept]:
      c.zero(layout.along(dimension))
  return True


def gather(c: Charges, step: axis_facts.Step) -> bool:
  """Looks up slices that are whole along some dimensions: these are kept."""
  p, value = step.eqn.params, step.args[0]
  numbers = p['dimension_numbers']
  for indices in step.args[1:]:
    c.pin(indices)
  x, out = c.blocks(value), c.blocks(step.results[0])
  taken = indexing.taken(step.eqn, step.args)
  if taken is not None and value.constant is None:
    return ranges.take(c, value, step.results[0], taken)
  if len(x.pieces) > 1 or len(out.pieces) > 1:
    return False
  (a,), (r,) = x.pieces, out.pieces
  gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
  kept = [i for i in range(len(a)) if i not in gone]
  used = set()
  for i, k in zip(kept, numbers.offset_dims):
    if p['slice_sizes'][i] == value.axes[i].size:
      c.equal(a[i], r[k])
      used.add(k)
    else:
      c.zero([*layout.along(a[i]), *layout.along(r[k])])
  for i in gone:
    c.zero(layout.along(a[i]))
  for k, dimension in enumerate(r):
    if k not in used:
      c.zero(layout.along(dimension))
  if value.constant is not None:
    c.pin(value)
  return True


def dynamic_slice(c: Charges, step: axis_facts.Step) -> bool:
  """Keeps the dimensions that are taken whole."""
  value, sizes = step.args[0], step.eqn.params['slice_sizes']
  taken = indexing.taken(step.eqn, step.args)
  if taken is not None and value.constant is None:
    return ranges.take(c, value, step.results[0], taken)
  for index in step.args[1:]:
    c.pin(index)
  whole = [i for i, a in enumerate(value.axes) if a.size == sizes[i]]
  return moves.same_but(
    lambda eqn: [i for i in range(len(sizes)) if i not in whole]
  )(c, step)
