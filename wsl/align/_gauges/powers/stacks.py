"""The equations of primitives that stack arrays, or repeat them."""

from wsl.align._find import axis_facts, known_constants
from wsl.align._gauges import layout
from wsl.align._gauges.powers import charges as charges_lib

Charges = charges_lib.Charges


def stack(c: Charges, step: axis_facts.Step) -> bool:
  """Joins arrays along a new dimension, along which powers are 0."""
  axis, out = step.eqn.params['axis'], c.blocks(step.results[0])
  many = any(len(c.blocks(v).pieces) > 1 for v in step.args)
  # The result has a piece for each operand, or one.
  separate = len(out.pieces) == len(step.args) and out.dim == axis
  if many or (len(out.pieces) > 1 and not separate):
    return False
  for k, value in enumerate(step.args):
    piece = out.pieces[k if separate else 0]
    c.zero(layout.along(piece[axis]))
    if known_constants.is_zero(value.constant):
      continue
    if value.constant is not None:
      c.pin(value)
    kept = (*piece[:axis], *piece[axis + 1 :])
    for dims in zip(c.blocks(value).pieces[0], kept):
      c.equal(*dims)
  return True


def tile(c: Charges, step: axis_facts.Step) -> bool:
  """Repeats an array: a tiled dimension is a product of copies and itself."""
  x, out = c.blocks(step.args[0]), c.blocks(step.results[0])
  if len(x.pieces) > 1 or len(out.pieces) > 1:
    return False
  for a, r, n in zip(x.pieces[0], out.pieces[0], step.eqn.params['reps']):
    if n == 1:
      c.equal(a, r)
      continue
    if len(a) == len(r) == 1 and len(r[0].spots) == len(a[0].spots) + 1:
      copies, *rest = r[0].spots
      inner = layout.product(rest)
      if layout.same(layout.product(a[0].spots), inner) is not None:
        c.equal(layout.product(a[0].spots), inner)
        c.repeat([copies])
        continue
    c.zero([*layout.along(a), *layout.along(r)])
  return True
