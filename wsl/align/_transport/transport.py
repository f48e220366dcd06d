r"""Transport of a model to the widths of another one."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _assignment, _soft, _symmetry
from wsl.align._transport import arguments, carry, contracted, search
from wsl.align._transport import blocks as blocks_lib
from wsl.align._transport import moves as moves_lib
from wsl.align._transport import setting as setting_lib


class Transport(NamedTuple):
  """A model at the widths of another one.

  Attributes:
    maps: for each group its coupling ``[*outer, *free outer, n, m]`` of n fixed
      and m moving units, of total mass n; for units inside heads one for each
      pair of heads. Of equal widths and without regularisation, a permutation
      matrix.
    params: the moving model, with the shapes of the fixed one.
    distances: the squared distance of ``params`` from the fixed model, over the
      selected leaves, before and after each sweep: it never rises.
  """

  maps: dict[str, types.Array]
  params: types.Params
  distances: tuple[float, ...]


def transport(
  fixed: types.Params,
  moving: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  views: Mapping[str, tree.Matrix | None],
  other: _symmetry.Symmetry | None = None,
  marginals: str | None = None,
  regularisation: float = 0.0,
  unbalanced: float | None = None,
  masses: tuple[Mapping[str, types.Array], Mapping[str, types.Array]]
  | None = None,
  leaves: types.Leaves = _arguments.default_leaves,
  solver: _assignment.Solver = _assignment.assign_scipy,
  max_sweeps: int = 100,
) -> Transport:
  r"""Carries a model to the widths of another model of the same architecture.

  .. math:: T_g = \arg\min_T \langle C_g, T \rangle
    + \epsilon\, \mathrm{KL}(T \,\|\, \mu \nu^\top / n)
    + \lambda\, \mathrm{KL}(T 1 \,\|\, \mu)
    + \lambda\, \mathrm{KL}(T^\top 1 \,\|\, \nu)

  for each group g of units, with the costs C of pairing them given all other
  groups. Weights into units are averaged over their partners, and weights out
  of them are divided among the partners:

  .. math:: R = \mathrm{diag}(T 1)^{-1}\, T, \qquad
    D = T\, \mathrm{diag}(T^\top 1)^{-1}, \qquad
    W'_{in} = R\, W_{in}, \quad W'_{out} = W_{out} D^\top.

  So a small model becomes a wide one of the same function, and a wide model
  whose units are copies becomes the small one. The cost of two units is the
  squared distance of their weights in and of their weights out for each unit of
  mass. Groups are coupled from the inputs and outputs inwards, then in turn
  while the distance from the fixed model falls. For groups with dependents
  (heads and their units) the cost of a pair includes that of the best coupling
  inside. Merge ``params`` with ``fixed`` as any two models.

  Units are not matched up to scales and signs: two units that differ by a scale
  of their weights in, and its inverse out, are at a distance. ``balance`` both
  models before, where it matters.

  The function of a smaller model is kept by semi-permutations, with these
  exceptions. A normalisation over a group has equal moments only if all units
  have equally many copies, as with ``'both'`` at an integer ratio of widths.
  Constants of the width, such as the temperature of attention, are those of the
  fixed model. Routing by rank selects an expert and its copy as two. Where no
  leaf's product contracts a group (units of queries and keys), weights are
  divided in the leaves with the opposite power of an action of ``symmetry``, or
  else nowhere.

  Runs on the host in float64 and cannot be traced. Exact transport is a linear
  program where masses differ, or where the least common multiple of the widths
  is above 8192: use a regularisation for large groups then.

  Args:
    fixed: the model whose widths are kept; in memory or on demand.
    moving: the model to carry, of the same leaves and other sizes of groups.
    symmetry: the symmetry of ``fixed``.
    views: ``stats.matrix_views`` of either model: the axes of leaves that a
      product contracts.
    other: the symmetry of ``moving``; None if the widths are equal.
    marginals: ``'semi'``: every unit of the larger model has exactly one
      partner, and every unit of the smaller one at least one (a
      semi-permutation). ``'both'``: the masses of both sides are exact, so
      units are split (optimal transport). None: ``'semi'`` without
      regularisation, else ``'both'``.
    regularisation: epsilon, >= 0, relative to the mean cost; above 0 the
      couplings are soft.
    unbalanced: lambda, > 0, relative to the mean cost: marginals are penalised,
      not exact. A unit without a good partner transports little mass, and its
      weights out are multiplied by the share that is transported. None: exact.
    masses: importances of the units of ``fixed`` and ``moving``, > 0, for some
      groups ``[*outer, n]``, as ``surgery.weight_importance`` returns. None:
      all units have the same.
    leaves: the leaves that count: a regular expression or a predicate on (name,
      shape). By default all but running statistics of normalisation; the other
      leaves are carried too, and a group of none of these keeps its order.
    solver: an assignment solver, e.g. ``align.assign_lapx``.
    max_sweeps: the maximum number of sweeps over all groups, at least 1.

  Returns:
    The couplings and the carried model.

  Raises:
    ValueError: if the symmetries or a model do not fit, a leaf of several axes
      has no rule in ``views`` or is not finite, or a hyperparameter is invalid.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align, stats
    >>> mlp = lambda p, x: jnp.tanh(x @ p['a']) @ p['b']
    >>> x = jnp.ones((4, 2))
    >>> small = {'a': jnp.asarray([[1.0, 2.0], [0.0, 1.0]]),
    ...          'b': jnp.asarray([[3.0], [1.0]])}
    >>> wide = {'a': jnp.asarray([[2.0, 1.0, 2.0], [1.0, 0.0, 1.0]]),
    ...         'b': jnp.asarray([[0.5], [3.0], [0.5]])}
    >>> found = transport(small, wide,
    ...                   symmetry=align.find_symmetry(mlp, small, x),
    ...                   other=align.find_symmetry(mlp, wide, x),
    ...                   views=stats.matrix_views(mlp, small, x))
    >>> found.params['a'].tolist(), found.params['b'].tolist()
    ([[1.0, 2.0], [0.0, 1.0]], [[3.0], [1.0]])

  Reference:
    Singh and Jaggi, "Model Fusion via Optimal Transport", 2019,
    arXiv:1910.05653; Imfeld et al., "Transformer Fusion with Optimal
    Transport", 2023, arXiv:2310.05719; Theus et al., "Generalized Linear Mode
    Connectivity for Transformers", 2025, arXiv:2506.22712 (semi-permutations);
    Chizat et al., "Scaling Algorithms for Unbalanced Transport Problems", 2016,
    arXiv:1607.05816.
  Differs from the official codes in that weights out of units are divided among
  their partners, so that their sum is kept, and not averaged; in costs from
  both sides of a unit, and repeated visits; and in groups found from the traced
  function, heads as wholes among them.
  """
  problem = arguments.problem(
    marginals, regularisation, unbalanced, solver, max_sweeps
  )
  symmetries = symmetry, symmetry if other is None else other
  arguments.check_models(fixed, moving, symmetries)
  summed = contracted.factors(fixed, symmetry, views)
  setting = setting_lib.Setting(
    blocks_lib.load(fixed, moving, symmetries, summed, leaves),
    symmetry,
    arguments.masses(masses, symmetries),
    problem,
  )
  moves = moves_lib.find(setting)
  start, solved = search.grow(
    setting, search.begin(setting, setting_lib.independent(setting)), moves
  )
  if problem.semi:
    # A model that was widened by copies in order is recognised at once.
    diagonal = search.begin(setting, setting_lib.diagonal(setting))
    if diagonal.distance < start.distance:
      start, solved = diagonal, set()
  state, distances = search.descend(
    setting, start, moves, solved=solved, max_sweeps=max_sweeps
  )
  params = carry.carry_model(
    moving, state.maps, symmetries=symmetries, contracted=summed
  )
  dtype = _soft.matrix_dtype(fixed, moving)
  maps = {
    name: jax.device_put(np.asarray(x, dtype))
    for name, x in state.couplings.items()
  }
  return Transport(maps, params, tuple(distances))
