"""Balanced models: the smallest norm that scales and linear maps reach."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _permutation, _symmetry
from wsl.align._gauges import elements
from wsl.align._gauges.balance import gram_means, log_scales
from wsl.align._gauges.balance import pieces as pieces_lib

_SWEEPS = 200
_TOLERANCE = 1e-13  # relative change of the tables that ends the sweeps


class Balanced(NamedTuple):
  """A model of smallest norm among those of its function.

  Attributes:
    params: the model.
    gauge: the scales and linear maps that were applied; ``permute(params,
      invert(gauge, ...), ...)`` restores the given model.
    kept: the actions that could not be balanced, and why.
  """

  params: types.Params
  gauge: dict[str, types.Array]
  kept: dict[str, str]


def balance(
  params: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  gauges: Sequence[str] = _symmetry.GAUGES,
  leaves: types.Leaves = _arguments.default_leaves,
) -> Balanced:
  r"""Returns the model of smallest norm among those of the same function.

  .. math:: \min_g \lVert g\theta \rVert^2

  over the positive scales, the invertible linear maps, and the moduli of phases
  of the symmetry. By the theorem of Kempf and Ness the minimum is unique up to
  orthogonal maps: two models that differ by any gauge have balanced models that
  differ by permutations, signs, rotations and unit phases only, which are
  isometries. For a unit with ingoing norm a and outgoing norm b the scale is
  :math:`\sqrt{b / a}`, so that both norms are :math:`\sqrt{a b}`. For vectors
  with Gram matrix G and covectors with H the map is the square root of the
  geometric mean :math:`P = G^{-1} \# H`, which solves P G P = H.

  Some scales multiply all leaves by positive powers, such as those of weights
  before a normalisation: the norm has no minimum, and the squared norm of such
  a unit is set to 1. In general the function that is minimised is the sum over
  the distinct powers p of :math:`m_p - \log m_p`, with m_p the squared norm of
  a unit in the leaves with this power; the logarithms cancel if the powers do.

  Args:
    params: a model.
    symmetry: its symmetry.
    gauges: the kinds to balance, of ``'scale'``, ``'linear'`` and ``'phase'``.
    leaves: the leaves whose norm counts: by default all except running
      statistics of normalisation.

  Returns:
    The model, in its dtypes, the gauge, and the actions that were kept: linear
    maps of heads of lower rank, which have no balanced form, and those that act
    twice on one leaf.

  Raises:
    ValueError: if the model does not fit the symmetry or is not finite.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> mlp = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
    >>> params = {'a': jnp.asarray([[8.0, 1.0]]),
    ...           'b': jnp.asarray([[2.0], [1.0]])}
    >>> symmetry = align.find_symmetry(mlp, params, jnp.ones((1, 1)))
    >>> found = balance(params, symmetry=symmetry)
    >>> found.params['a'].round(5).tolist(), found.params['b'].round(5).tolist()
    ([[4.0, 1.0]], [[4.0], [1.0]])

  Reference: Kempf and Ness, "The length of vectors in representation spaces",
    1979, Lecture Notes in Mathematics 732.
  """
  named = tree.named(params)
  _arguments.check_kinds(gauges, 'balance')
  _arguments.check_known('balance', params)
  _arguments.check_leaves(symmetry, named, 'balance: params')
  tree.check_real('balance', params, 'balance its real and imaginary parts')
  tables, kept = solve(params, symmetry, gauges, leaves, 'balance: params')
  wide = tree.wide_dtype(*(x for x in named.values() if tree.is_float(x)))
  gauge = {
    name: tree.apply_kernel(jnp.array, table.astype(wide))
    for name, table in tables.items()
  }
  identity = _permutation.identity(symmetry)
  moved = _permutation.permute(params, identity | gauge, symmetry=symmetry)
  return Balanced(moved, gauge, kept)


def solve(
  params: types.Params,
  symmetry: _symmetry.Symmetry,
  gauges: Sequence[str],
  leaves: types.Leaves,
  argument: str,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Returns the float64 tables of ``balance``, and the actions that it keeps.

  Scales of all units are one convex problem, and so is each linear map; they
  are solved in turn. In the coordinates of scales and maps the norm is
  geodesically convex, so the sweeps end at the minimum.
  """
  kinds = {'scale', 'linear', 'phase'} & {*gauges}
  chosen = [a for a in symmetry.actions if a.kind in kinds and not a.unit]
  names = {a.name for a in chosen}
  pieces = pieces_lib.read(params, symmetry, names, leaves, argument)
  used = {act.name for piece in pieces for act in piece.acts}
  kept: dict[str, str] = {}
  for action in chosen:
    if action.kind == 'linear' and action.name in used:
      reason = gram_means.unsolvable(action, pieces)
      if reason:
        kept[action.name] = reason
  names = used - kept.keys()
  linear = [a.name for a in chosen if a.kind == 'linear' and a.name in names]
  scales = [a.name for a in chosen if a.kind != 'linear' and a.name in names]
  tables = elements.identity_actions(symmetry, names)
  # The norm is a sum over blocks. A map whose blocks have no other action is a
  # problem of its own, solved at once; the others share blocks with scales, or
  # with each other.
  coupled = [name for name in linear if _is_coupled(name, pieces, names)]
  for name in linear:
    if name not in coupled:
      gram_means.update(pieces, symmetry, name, tables)
  for _ in range(_SWEEPS):
    change = 0.0
    if scales:
      change = log_scales.update(pieces, symmetry, scales, tables)
    for name in coupled:
      change = max(change, gram_means.update(pieces, symmetry, name, tables))
    if change < _TOLERANCE or not coupled:
      break
  return tables, kept


def _is_coupled(
  name: str, pieces: Sequence[pieces_lib.Piece], names: Collection[str]
) -> bool:
  """Returns True if another action acts on a block of an action."""
  acts = [{act.name for act in piece.acts} & {*names} for piece in pieces]
  return any(name in one and len(one) > 1 for one in acts)
