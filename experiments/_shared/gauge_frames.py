"""Networks in the form in which gauges of some kinds can be matched.

Signs and permutations are matched between networks as they are. Scales, linear
maps and phases are not isometries: they are matched between balanced networks,
the representatives of smallest norm. Rotations of a residual stream exist only
after the gains of norms are absorbed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from wsl import align, tree, types

_UNBOUNDED = {'scale', 'linear', 'phase'}


def cumulative(ladder: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
  """Returns all kinds that are matched in each row, by the kinds it adds.

  Example:
    >>> cumulative((('sign',), ('scale', 'linear')))['scale_linear']
    ('permutation', 'sign', 'scale', 'linear')
  """
  kinds: tuple[str, ...] = ('permutation',)
  found = {}
  for new in ladder:
    kinds = (*kinds, *new)
    found['_'.join(new)] = kinds
  return found


def bring(
  apply_fn: Callable[..., Any],
  networks: Sequence[types.Params],
  inputs: Any,
  *,
  kinds: Sequence[str],
) -> tuple[align.Symmetry, list[types.Params]]:
  """Brings networks into the form that the matching of some kinds needs.

  Args:
    apply_fn: the function of all networks, ``apply_fn(params, inputs)``.
    networks: parameters.
    inputs: one batch, for its shape.
    kinds: of gauges.

  Returns:
    The symmetry of networks in that form, and the networks, of unchanged
    functions.
  """
  each, gains = [*networks], None
  if 'rotation' in kinds:
    symmetry = align.find_symmetry(apply_fn, each[0], inputs)
    absorbed = [align.absorb_norms(one, symmetry=symmetry) for one in each]
    gains = _common([one.gains for one in absorbed])
    each = [one.params for one in absorbed]
  symmetry = align.find_symmetry(
    apply_fn, each[0], inputs, gauges=kinds, ones=gains
  )
  return symmetry, [
    balanced(one, symmetry=symmetry, kinds=kinds) for one in each
  ]


def _common(patterns: Sequence[str | None]) -> str | None:
  """Returns the gains that were absorbed in all networks."""
  every = [(pattern or '').split('|') for pattern in patterns]
  return '|'.join(x for x in every[0] if all(x in own for own in every)) or None


def balanced(
  params: types.Params, *, symmetry: align.Symmetry, kinds: Sequence[str]
) -> types.Params:
  """Balances a network if some kinds are no isometries."""
  if not _UNBOUNDED & {*kinds}:
    return params
  return align.balance(params, symmetry=symmetry, gauges=kinds).params


def apart(a: types.Params, b: types.Params) -> float:
  r"""Returns how far the matrices and kernels of two networks are apart.

  .. math:: \|a - b\| / \sqrt{\|a\|^2 + \|b\|^2}

  It is 0 for equal networks, and 1 for unrelated ones: those whose weights are
  orthogonal. Vectors do not count, as gains are alike in all networks.
  """
  a, b = (_matrices(x) for x in (a, b))
  difference = jax.tree.map(lambda x, y: x - y, a, b)
  norms = [float(tree.norm(x)) for x in (difference, a, b)]
  return norms[0] / (norms[1] ** 2 + norms[2] ** 2) ** 0.5


def _matrices(params: types.Params) -> types.Params:
  """Returns the leaves of two axes or more, by name."""
  return {n: x for n, x in tree.named(params).items() if x.ndim > 1}
