"""The rule of each primitive, for vectors along an axis."""

from typing import Any

from wsl.align._find import axis_facts, known_constants
from wsl.align._find.rules import elementwise as elementwise_lib
from wsl.align._gauges import layout
from wsl.align._gauges.linear import elementwise as entrywise
from wsl.align._gauges.linear import types as types_lib
from wsl.align._gauges.powers import primitives, roles, rules

Types = types_lib.Types


def dot(c: Types, step: axis_facts.Step) -> bool:
  """Contracts vectors with covectors; other axes are kept."""
  found = roles.contraction(c, step)
  if found is None:
    return False
  c.zero([spot for d in found.groups for spot in layout.along(d)])
  for sizes in step.args[2:]:
    c.pin(sizes)
  # (A x) . (A^-T y) = x . y: one operand is a vector, the other a covector.
  for a, b in found.contracted:
    pairs = layout.same(a, b)
    if pairs is None:
      c.zero([*layout.along(a), *layout.along(b)])
    for p, q in pairs or []:
      c.contract(p, q)
  # Along a batch axis entries are multiplied, as by an elementwise product.
  for a, b, out in found.batch:
    pairs, results = layout.same(a, b), layout.same(a, out)
    if pairs is None or results is None:
      return False
    for (p, q), (_, s) in zip(pairs, results):
      c.multiply(p, q, s)
  for dims in found.free:
    c.equal(*dims)
  return True


def convolution(c: Types, step: axis_facts.Step) -> bool:
  """Contracts channels; along positions nothing may act."""
  p = step.eqn.params
  spec = p['dimension_numbers']
  x, kernel, r = (c.blocks(v) for v in (*step.args, step.results[0]))
  many = any(len(z.pieces) > 1 for z in (x, kernel, r))
  if many or p['batch_group_count'] != 1 or p['feature_group_count'] != 1:
    return False
  (a,), (k,), (out,) = x.pieces, kernel.pieces, r.pieces
  pairs = layout.same(a[spec.lhs_spec[1]], k[spec.rhs_spec[1]])
  if pairs is None:
    return False
  for s, t in pairs:
    c.contract(s, t)
  c.equal(a[spec.lhs_spec[0]], out[spec.out_spec[0]])
  c.equal(k[spec.rhs_spec[0]], out[spec.out_spec[1]])
  specs = (spec.lhs_spec, spec.rhs_spec, spec.out_spec)
  for dims, piece in zip(specs, (a, k, out)):
    for i in dims[2:]:
      for spot in layout.along(piece[i]):
        c.fail(spot)
  return True


def reduce_sum(c: Types, step: axis_facts.Step) -> bool:
  """Adds up entries along axes and keeps vectors along others."""
  parts = roles.reduced(c, step)
  if parts is None:
    return False
  for gone, kept in parts:
    for spot in gone:
      c.add_up(spot)
    for dims in kept:
      c.equal(*dims)
  return True


def reduce_any(c: Types, step: axis_facts.Step) -> bool:
  """Fails for operands that vary; keeps the types of the other axes."""
  x, r = c.blocks(step.args[0]), c.blocks(step.results[0])
  axes = step.eqn.params['axes']
  if any(isinstance(i, str) for i in axes):
    return False
  if len(x.pieces) > 1 or len(r.pieces) > 1:
    return False
  c.pin(step.args[0])
  kept = [a for i, a in enumerate(x.pieces[0]) if i not in axes]
  for dims in zip(kept, r.pieces[0]):
    c.equal(*dims)
  return True


def tie(c: Types, step: axis_facts.Step) -> bool:
  """Joins an array before, in and after a loop; it may start as zeros."""
  (x,), (y,) = step.args, step.results
  a, r = c.blocks(x), c.blocks(y)
  if len(a.pieces) != len(r.pieces):
    return False
  for p, q in zip(a.pieces, r.pieces):
    for dims in zip(p, q):
      if not known_constants.is_zero(x.constant):
        c.equal(*dims)
        continue
      for spot in layout.along(dims[1]):
        c.states.setdefault(spot, types_lib.ZERO)
  return True


MOVES = (
  'broadcast_in_dim', 'concatenate', 'dynamic_slice', 'dynamic_update_slice',
  'expand_dims', 'fft', 'gather', 'loop put', 'loop take', 'pad', 'reshape',
  'slice', 'split', 'squeeze', 'stack', 'tile', 'transpose',
  'triangular_solve', 'unstack',
  *primitives.SCATTERS,
)  # fmt: skip
RULES: dict[str, Any] = {
  **{name: rules.RULES[name] for name in MOVES},
  **dict.fromkeys(('add', 'sub', 'add_any'), entrywise.add),
  **dict.fromkeys(
    ('integer_pow', 'square', *entrywise.LINEAR),
    entrywise.unary,
  ),
  'conv_general_dilated': convolution,
  'div': entrywise.divide,
  'dot_general': dot,
  'mul': entrywise.multiply,
  **dict.fromkeys(('reduce_sum', 'psum'), reduce_sum),
  'ragged_dot_general': dot,
  'select_n': entrywise.select,
  'loop tie': tie,
  **dict.fromkeys(('reduce_max', 'reduce_min', 'pmax', 'pmin'), reduce_any),
}


def rule_of(step: axis_facts.Step) -> Any:
  """Returns the rule of a step; other functions act on each entry."""
  if step.name in RULES:
    return RULES[step.name]
  return (
    entrywise.any_function if step.name in elementwise_lib.ELEMENTWISE else None
  )
