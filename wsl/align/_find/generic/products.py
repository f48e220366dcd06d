"""Traits of products and convolutions."""

from collections.abc import Sequence

from jax.extend import core

from wsl.align._find.generic import arithmetic
from wsl.align._find.generic import operands as operands_lib
from wsl.align._find.generic import traits as traits_lib


def dot_general(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  r"""Sums :math:`\sum_j x_j r_{je}`: linear forms, nonzero if x is."""
  contract, batch = eqn.params['dimension_numbers']
  sides = [
    (frozenset(contract[i]), list(batch[i]), operands[i]) for i in (0, 1)
  ]
  count = len(batch[0])
  frees = [
    [d for d in range(len(x.shape)) if d not in c and d not in b]
    for c, b, x in sides
  ]
  starts = (count, count + len(frees[0]))
  found = traits_lib.Traits()
  for i in (0, 1):
    (c, b, r), (other, _, x) = sides[i], sides[1 - i]
    free = {d: starts[i] + k for k, d in enumerate(frees[i])}
    paired = {d: k for k, d in enumerate(b)}
    alive = operands_lib.nonzero(x) or any(
      x.shape[d] > 1 and d in x.traits.alive for d in other
    )
    joint, linear = dict(found.joint), dict(found.linear)
    for m, dims in arithmetic.independent(r.traits.joint, x.traits).items():
      outs = frozenset(free[d] for d in dims if d in free)
      if c <= dims and alive:
        joint[m] = outs | {paired[d] for d in dims if d in paired}
      if all(d in dims or n == 1 for d, n in enumerate(r.shape)):
        linear[m] = outs
    for m, dims in arithmetic.independent(r.traits.linear, x.traits).items():
      linear[m] = frozenset(free[d] for d in dims if d in free)
    found = found._replace(joint=joint, linear=linear)
  return found


def convolution(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """Linear forms of the kernel, whose coefficients all channels share."""
  p, (x, kernel) = eqn.params, operands
  if p['feature_group_count'] != 1 or p['batch_group_count'] != 1:
    return traits_lib.Traits()
  whole = frozenset(range(len(kernel.shape)))
  channels = frozenset([p['dimension_numbers'].out_spec[1]])
  table = arithmetic.independent(kernel.traits.joint, x.traits)
  forms = {m: channels for m, dims in table.items() if dims == whole}
  inside = operands_lib.nonzero(x) and not any(map(any, p['padding']))
  return traits_lib.Traits(joint=forms if inside else {}, linear=forms)
