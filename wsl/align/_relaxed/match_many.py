"""Cycle-consistent alignment of many models."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from wsl import tree, types
from wsl.align import (
  _arguments,
  _assignment,
  _permutation,
  _soft,
  _symmetry,
)
from wsl.align._gauges import compose
from wsl.align._match import in_turn
from wsl.align._relaxed import frank_wolfe, many_arguments, objective


class Sweep(NamedTuple):
  """The result of one sweep over all models.

  Attributes:
    start: the index of the start, from 0.
    sweep: the index of the sweep, from 0.
    objective: J of the doubly stochastic matrices afterwards.
    gained: the increase of J, at least 0.
  """

  start: int
  sweep: int
  objective: float
  gained: float


def match_many(
  models: Sequence[types.Params],
  *,
  symmetry: _symmetry.Symmetry,
  key: types.PRNGKey,
  starts: int = 1,
  initial: str | Sequence[Mapping[str, types.Array]] = 'center',
  update: str = 'in turn',
  leaves: types.Leaves = _arguments.default_leaves,
  solver: _assignment.Solver = _assignment.assign_scipy,
  max_sweeps: int = 200,
  tolerance: float = 1e-6,
  patience: int = 5,
  gauges: Sequence[str] = ('permutation',),
  progress: Callable[[Sweep], None] | None = None,
) -> list[_permutation.Permutation]:
  r"""Permutes N models into one basis, by the Frank-Wolfe algorithm.

  .. math:: \max_{P^1, \dots, P^N} \sum_{p < q}
    \langle P^p \theta^p, P^q \theta^q \rangle

  Every model has a permutation into a common basis, the universe. The map from
  model q to model p is :math:`P^{pq} = (P^p)^{-1} P^q`, so maps compose to the
  identity around every cycle. Permutations are relaxed to doubly stochastic
  matrices. A step computes the gradient by the matrices of a model from the sum
  of the other models, solves one assignment problem for each group, and
  moves to the best point of the segment that ends there. The objective on the
  segment is a polynomial, so the line search is exact and the objective never
  decreases. Dependent groups are updated before the groups that they depend on.
  At the end the matrices are rounded to permutations, and all permutations are
  composed with the inverse of the first one.

  With ``gauges`` other than permutations, models are balanced as in
  ``weight_matching``, so that all maps are isometries, and each in turn is
  matched to the mean of the others from its current element: the agreement
  never decreases. The start is grown, model by model; further starts grow in
  random orders.

  Args:
    models: N >= 2 models, leaves ``[...]`` of one structure and shapes.
    symmetry: the symmetry of all of them.
    key: a random key, for the matrices of ``'center'``.
    starts: number of restarts; the result of the highest objective is kept.
    initial: ``'center'``, halfway between the uniform matrix and a random
      doubly stochastic one; ``'identity'``; N permutations; or N dicts of
      doubly stochastic matrices (universe by model), for each group ``[*outer,
      *outer, n, n]``, such as those of ``sinkhorn_project``. With gauges
      ``'center'`` is the grown start, and elements take the place of matrices.
    update: ``'in turn'``, one model after the other; or ``'at once'``, all by
      one step as in the paper, which can oscillate between two models.
    leaves: which leaves to match: a regular expression or a predicate on (name,
      shape). By default all but running statistics of normalisation.
    solver: an assignment solver, e.g. ``align.assign_lapx``.
    max_sweeps: the maximal number of sweeps over all models.
    tolerance: a sweep is small if its gain, relative to the objective, is
      below this.
    patience: number of consecutive small sweeps after which to stop.
    gauges: the kinds of maps to match, such as ``align.GAUGES``.
    progress: called after every sweep.

  Returns:
    N permutations, indices ``[*outer, n]``, and tables of the actions of
    ``gauges``; the first is the identity. ``agreement`` gives the objective of
    the permuted models; with scales or linear maps, that of balanced ones is
    maximised.

  Raises:
    ValueError: if there are fewer than two models, they differ, do not fit the
      symmetry or contain NaN or inf, or an argument is invalid.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> models = [{'a': jnp.asarray(x)} for x in ([1., 2., 3.], [3., 1., 2.])]
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> found = match_many(models, symmetry=symmetry, key=jax.random.key(0))
    >>> [g['a:0'].tolist() for g in found]
    [[0, 1, 2], [1, 2, 0]]

  Reference:
    Crisostomi et al., "C2M3: Cycle-Consistent Multi-Model Merging", 2024,
    arXiv:2405.17897.

  Differs from the official code in that models are updated in turn
  (block-coordinate Frank-Wolfe, Lacoste-Julien et al., 2013, arXiv:1207.4747),
  gradients cost N products instead of N squared, the line search is exact, the
  tolerance is relative, and groups may depend on others or occur twice in a
  leaf.
  """
  tree.check_scalars('match_many', tolerance=tolerance)
  many_arguments.check(
    models, symmetry, starts, initial, update, max_sweeps, gauges
  )
  if {*gauges} != {'permutation'}:
    return in_turn.match(
      models,
      symmetry=symmetry,
      key=key,
      starts=starts,
      initial=initial,
      leaves=leaves,
      solver=solver,
      max_sweeps=max_sweeps,
      tolerance=tolerance,
      patience=patience,
      gauges=gauges,
      progress=progress and (lambda *x: progress(Sweep(*x))),
    )
  dtype = _soft.matrix_dtype(*models)
  names = _soft.matched_leaves(models[0], symmetry, leaves)
  stacked = many_arguments.stack(models, names, dtype)
  everyone = np.arange(len(models))
  best, found = -np.inf, [_permutation.identity(symmetry)] * len(models)
  for start in range(starts if stacked else 0):
    draw = jax.random.fold_in(key, start)
    first = frank_wolfe.initial_matrices(
      initial, len(models), symmetry, draw, dtype
    )
    report = None
    if progress is not None:
      report = _reporter(
        progress,
        start,
        float(objective.value(stacked, first, symmetry=symmetry)),
      )
    matrices, _ = frank_wolfe.maximize(
      stacked,
      first,
      symmetry=symmetry,
      solver=solver,
      schedule=everyone[None] if update == 'at once' else everyone[:, None],
      max_sweeps=max_sweeps,
      tolerance=tolerance,
      patience=patience,
      progress=report,
    )
    rounded = _round_each(matrices, symmetry, solver)
    value = _squared_sum(stacked, rounded, symmetry)
    if value > best:
      best, found = value, rounded
  # The objective is invariant to a permutation of the universe: choose the one
  # that makes the basis of the first model the universe.
  back = compose.invert(found[0], symmetry=symmetry)
  return [compose.compose(g, back, symmetry=symmetry) for g in found]


def _reporter(
  progress: Callable[[Sweep], None], start: int, begun: float
) -> Callable[[int, float], None]:
  """Returns a function that adds the gains of sweeps to the first objective."""
  total = begun

  def report(sweep: int, gained: float) -> None:
    nonlocal total
    total += gained
    progress(Sweep(start, sweep, total, gained))

  return report


def _round_each(
  matrices: _soft.Matrices,
  symmetry: _symmetry.Symmetry,
  solver: _assignment.Solver,
) -> list[_permutation.Permutation]:
  """Rounds the matrices of each model to a permutation."""
  count = len(next(iter(matrices.values())))
  each = [{name: x[p] for name, x in matrices.items()} for p in range(count)]
  return [_soft.round(m, symmetry=symmetry, solver=solver) for m in each]


def _squared_sum(
  models: objective.Leaves,
  permutations: Sequence[_permutation.Permutation],
  symmetry: _symmetry.Symmetry,
) -> float:
  r"""Returns :math:`\|S\|^2`, which is 2 J plus a constant."""
  dtype = next(iter(models.values())).dtype
  hard = frank_wolfe.harden_each(permutations, symmetry, dtype)
  sums = objective.universe_sum(models, hard, symmetry=symmetry)
  return sum(
    float(np.square(np.asarray(x, np.float64)).sum()) for x in sums.values()
  )
