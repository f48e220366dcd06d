"""The equations of products, convolutions, windows and reductions."""

import math
from typing import Any

from wsl.align._find import axis_facts
from wsl.align._gauges import layout
from wsl.align._gauges.powers import charges as charges_lib
from wsl.align._gauges.powers import elementwise, roles

Charges = charges_lib.Charges
BOTH = charges_lib.BOTH


def dot(c: Charges, step: axis_facts.Step) -> bool:
  """Contracted powers add up to 0; those of batch axes are added."""
  found = roles.contraction(c, step)
  if found is None:
    return False
  for value in step.args:
    if value.constant is not None:
      c.pin(value)
  for dimension in found.groups:
    c.zero(layout.along(dimension))
  for sizes in step.args[2:]:
    c.pin(sizes)
  for pair in found.contracted:
    c.combine(pair, (1, 1))
  for triple in found.batch:
    c.combine(triple, (1, 1, -1))
  for pair in found.free:
    c.equal(*pair)
  return True


def convolution(c: Charges, step: axis_facts.Step) -> bool:
  """Channels are contracted; positions and the window do not change.

  With G feature groups input channels are ``[G, inner]`` and outputs ``[G,
  units]``: the powers of the groups of both operands are added.
  """
  p = step.eqn.params
  spec, groups = p['dimension_numbers'], p['feature_group_count']
  x, kernel = (c.blocks(v) for v in step.args)
  out = c.blocks(step.results[0])
  many = any(len(z.pieces) > 1 for z in (x, kernel, out))
  if many or p['batch_group_count'] != 1:
    return False
  for value in step.args:
    if value.constant is not None:
      c.pin(value)
  (a,), (k,), (r,) = x.pieces, kernel.pieces, out.pieces
  for i in spec.lhs_spec[2:]:
    c.zero(layout.along(a[i]))
  for i in spec.rhs_spec[2:]:
    c.zero(layout.along(k[i]))
  for i in spec.out_spec[2:]:
    c.zero(layout.along(r[i]))
  c.equal(a[spec.lhs_spec[0]], r[spec.out_spec[0]])
  inputs, inner = a[spec.lhs_spec[1]], k[spec.rhs_spec[1]]
  kernels, outputs = k[spec.rhs_spec[0]], r[spec.out_spec[1]]
  if groups == 1:
    c.combine((inputs, inner), (1, 1))
    c.equal(kernels, outputs)
  elif inner == layout.ONE and layout.same(inputs, kernels) is not None:
    c.combine((inputs, kernels, outputs), (1, 1, -1))  # depthwise
  elif not _grouped(c, groups, inputs, inner, kernels, outputs):
    for dimension in (inputs, inner, kernels, outputs):
      c.zero(layout.along(dimension))
  return True


def _grouped(
  c: Charges,
  groups: int,
  inputs: layout.Dimension,
  inner: layout.Dimension,
  kernels: layout.Dimension,
  outputs: layout.Dimension,
) -> bool:
  """Relates the powers of a grouped convolution, if groups are major factors.

  Inputs are ``[G, inner]``, kernels and outputs ``[G, units]``.
  """
  parts = []
  for dimension in (inputs, kernels, outputs):
    if len(dimension) != 1:
      return False
    spots = dimension[0].spots
    count = next(
      (
        k
        for k in range(len(spots) + 1)
        if math.prod(s.atom.size for s in spots[:k]) == groups
      ),
      None,
    )
    if count is None:
      return False
    parts.append((spots[:count], spots[count:]))
  (x, rest), (y, units), (z, out) = (
    tuple(map(layout.product, pair)) for pair in parts
  )
  # out[g, u] = sum_i x[g, i] k[g, u, i]: groups are batch axes of a product.
  c.combine((x, y, z), (1, 1, -1))
  c.combine((rest, inner), (1, 1))
  c.equal(units, out)
  return True


def triangular_solve(c: Charges, step: axis_facts.Step) -> bool:
  """Keeps the right-hand sides, on which the solution depends linearly."""
  x, out = c.blocks(step.args[1]), c.blocks(step.results[0])
  if len(x.pieces) > 1 or len(out.pieces) > 1:
    return False
  c.pin(step.args[0])
  (a,), (r,) = x.pieces, out.pieces
  solved = len(a) - (2 if step.eqn.params['left_side'] else 1)
  for i, dims in enumerate(zip(a, r)):
    if i == solved:
      c.zero([spot for d in dims for spot in layout.along(d)])
    else:
      c.equal(*dims)
  return True


def window(domains: Any) -> elementwise.Rule:
  """Windows along some dimensions: powers are 0 there and kept elsewhere."""

  def rule(c: Charges, step: axis_facts.Step) -> bool:
    if len(step.results) != 1:
      return False
    x, out = c.blocks(step.args[0]), c.blocks(step.results[0])
    if len(x.pieces) > 1 or len(out.pieces) > 1:
      return False
    others = tuple(d for d in BOTH if d not in domains)
    sizes = step.eqn.params['window_dimensions']
    for a, r, n in zip(x.pieces[0], out.pieces[0], sizes):
      c.zero([*layout.along(a), *layout.along(r)], BOTH if n > 1 else others)
      if n == 1:
        c.equal(a, r, domains)
    return True

  return rule


def reduction(domains: Any, forget: bool = False) -> elementwise.Rule:
  """Sums and extremes along axes: powers are 0 there and kept elsewhere.

  Args:
    domains: those in which the kept powers may differ from 0.
    forget: whether the result is an index, which no factor changes.
  """

  def rule(c: Charges, step: axis_facts.Step) -> bool:
    parts = roles.reduced(c, step)
    if parts is None:
      return False
    others = tuple(d for d in BOTH if d not in domains)
    x, out = c.blocks(step.args[0]), c.blocks(step.results[0])
    c.zero(layout.spots(x), others)
    c.zero(layout.spots(out), BOTH if forget else others)
    for gone, kept in parts:
      c.zero(gone)
      if not forget:
        for dims in kept:
          c.equal(*dims, domains)
    return True

  return rule
