"""Checks of the arguments of ``transport``."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _assignment, _symmetry
from wsl.align._transport import costs, couplings

_MARGINALS = ('semi', 'both')
Pair = tuple[_symmetry.Symmetry, _symmetry.Symmetry]


def problem(
  marginals: str | None,
  regularisation: float,
  unbalanced: float | None,
  solver: _assignment.Solver,
  max_sweeps: int,
) -> couplings.Problem:
  """Returns the problem that the arguments describe.

  Raises:
    ValueError: naming the argument.
  """
  tree.check_scalars('transport', regularisation=regularisation)
  if not regularisation >= 0:
    raise ValueError(
      f'transport: regularisation={regularisation}, expected >= 0'
    )
  if unbalanced is not None:
    tree.check_scalars('transport', unbalanced=unbalanced)
    if not unbalanced > 0:
      raise ValueError(
        f'transport: unbalanced={unbalanced}, expected > 0, or None for exact '
        'marginals'
      )
    if not regularisation:
      raise ValueError(
        'transport: unbalanced transport needs regularisation > 0, such as 0.01'
      )
  if marginals is None:
    marginals = 'both' if regularisation else 'semi'
  if marginals not in _MARGINALS:
    raise ValueError(
      f'transport: marginals={marginals!r}, expected one of {_MARGINALS}'
    )
  if marginals == 'semi' and regularisation:
    raise ValueError(
      'transport: semi-permutations are exact: use regularisation=0, or '
      "marginals='both' for soft couplings"
    )
  tree.check_whole('transport', max_sweeps=max_sweeps)
  if max_sweeps < 1:
    raise ValueError(f'transport: max_sweeps={max_sweeps}, expected at least 1')
  return couplings.Problem(
    marginals == 'semi', float(regularisation), unbalanced, solver
  )


def check_models(
  fixed: types.Params, moving: types.Params, symmetries: Pair
) -> None:
  """Checks that two symmetries are of one architecture, and fit the models.

  Raises:
    ValueError: naming the leaf or the factor.
  """
  a, b = symmetries
  for name, model, symmetry in (('fixed', fixed, a), ('moving', moving, b)):
    _arguments.check_leaves(symmetry, tree.named(model), f'transport: {name}')
    tree.check_real('transport', model, 'carry its real and imaginary parts')
  for leaf, axes in a.axes:
    if b.leaf[leaf] != axes or _runs(a, leaf) != _runs(b, leaf):
      raise ValueError(
        f"transport: the axes of leaf '{leaf}' have other factors in symmetry "
        'than in other: are the models of one architecture and depth?'
      )
  for name, factor in a.factor.items():
    twin = b.factor[name]
    if bool(factor.pinned) != bool(twin.pinned) or factor.outer != twin.outer:
      raise ValueError(
        f"transport: factor '{name}' is a group, or depends on others, in one "
        'of symmetry and other alone: pass both from find_symmetry'
      )
    if factor.pinned and factor.size != twin.size:
      raise ValueError(
        f"transport: factor '{name}' has {factor.size} entries in fixed and "
        f'{twin.size} in moving, and is pinned: {factor.pinned}'[:200]
      )
  leaves = tree.named(moving)
  for name, x in tree.named(fixed).items():
    shapes = tuple(np.shape(x)), tuple(np.shape(leaves[name]))
    if shapes[0] != shapes[1] and not jnp.issubdtype(x.dtype, jnp.floating):
      raise ValueError(
        f"transport: leaf '{name}' of {x.dtype} has shapes {shapes[0]} and "
        f'{shapes[1]}: integers are not averaged; remove it from the models'
      )


def _runs(symmetry: _symmetry.Symmetry, leaf: str) -> set[tuple[int, ...]]:
  """Returns the runs of segments that alternate in a leaf."""
  return {tuple(run[1:]) for run in symmetry.interleaved if run.leaf == leaf}


def masses(
  given: tuple[Mapping[str, Any], Mapping[str, Any]] | None, symmetries: Pair
) -> dict[str, costs.Masses]:
  """Returns the masses of the units of every group.

  Raises:
    ValueError: naming the group of which an importance does not fit.
  """
  found = {}
  given = ({}, {}) if given is None else given
  pair_of = isinstance(given, (tuple, list)) and len(given) == 2
  if not pair_of or not all(isinstance(side, Mapping) for side in given):
    raise ValueError(
      f'transport: masses is a {type(given).__name__}: give two dicts, of the '
      'units of fixed and of moving'
    )
  for side in given:
    for name in side:
      names = [group.name for group in symmetries[0].groups]
      if name not in names:
        raise ValueError(
          f"transport: masses has a group '{name}' that the symmetry does not "
          f'have{tree.nearest(name, names)}'
        )
  for group in symmetries[0].groups:
    pair = []
    for side, symmetry in zip(given, symmetries):
      shape = symmetry.table_shape(group.name)
      table = np.asarray(side.get(group.name, np.ones(shape)), np.float64)
      if table.shape != shape or not (np.isfinite(table) & (table > 0)).all():
        raise ValueError(
          f"transport: masses of group '{group.name}' of shape {table.shape}: "
          f'expected {shape}, finite and > 0'
        )
      pair.append(table)
    found[group.name] = couplings.masses_of(*pair)
  return found
