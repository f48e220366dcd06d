r"""Weight matching: the permutation of a model closest to another model.

Coordinate ascent on the agreement :math:`\langle\theta^A, \pi\theta^B\rangle`:
groups are visited in random order, and each takes its best permutation with all
others held fixed. The agreement never decreases, and a table changes only where
it strictly increases. There are finitely many permutations, so the ascent
terminates.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _assignment, _permutation, _symmetry
from wsl.align._gauges import balanced_pair, views
from wsl.align._match import (
  ascent,
  block_pairs,
  cached_gains,
  first_guess,
  schedule,
)


class Visit(NamedTuple):
  """The result of one visit to a group.

  Attributes:
    start: the index of the ascent, from 0.
    sweep: the index of its sweep over all groups, from 0.
    group: the name of the group.
    objective: the agreement of both models afterwards, summed in float64.
    gained: the increase of the agreement, at least 0.
  """

  start: int
  sweep: int
  group: str
  objective: float
  gained: float


def weight_matching(
  fixed: types.Params,
  moving: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  key: types.PRNGKey,
  starts: int = 1,
  initial: _permutation.Permutation | None = None,
  leaves: types.Leaves = _arguments.default_leaves,
  solver: _assignment.Solver = _assignment.assign_scipy,
  max_sweeps: int = 100,
  tolerance: float = 1e-6,
  gauges: Sequence[str] = ('permutation',),
  progress: Callable[[Visit], None] | None = None,
) -> _permutation.Permutation:
  r"""Finds the permutation that brings a model closest to another model.

  .. math:: \arg\max_\pi \sum_k \langle\theta^A_k, (\pi\theta^B)_k\rangle
     = \arg\min_\pi \lVert \theta^A - \pi\theta^B \rVert^2

  The first start is grown from the inputs and outputs inwards, or is the
  current order if that is better. It is followed by coordinate ascent: each
  group in turn takes its best assignment given all others, and is visited again
  only if a group that shares a leaf with it has changed. With ``starts=N``
  there are 3 N ascents: this one, N from the current order, each with its own
  random order of visits, and 2 N - 1 of an iterated local search: from guesses
  grown in other orders, from guesses grown from one group of the best result
  with some of its units exchanged, and from the best result with a few units of
  every group drawn again. So the agreement is at least that of the best of N
  runs of the official algorithm with these orders of visits, and more starts
  are never worse. A group on which others depend (attention heads and the units
  inside them) is matched together with them. A group that occurs twice in a
  tensor, as in a recurrent matrix, is a quadratic assignment problem, and
  changes only if the agreement increases.
  Runs on the host, whatever the default device, compiles nothing and cannot be
  traced.

  With ``gauges``, signs, scales, rotations, phases and linear maps are matched
  too. Both models are first replaced by their balanced ones
  (``align.balance``), which makes the objective independent of the gauge of
  either model. What is left are isometries, in the same ascent: each orthogonal
  map has the polar factor of its gains (Procrustes), each phase the argument of
  their complex sum, and signed permutations and heads are matched by the value
  of the best sign, rotation or phase inside each pair, which is exact. The
  agreement, and every visit's ``objective``, is that of the balanced models.

  Args:
    fixed: the model that stays in its order; in memory or on demand.
    moving: the model to permute, of the same leaves.
    symmetry: the symmetry of both.
    key: a random key, for the order of visits.
    starts: the number of starts, at least 1; the best agreement is returned.
      More than one ascend three times each.
    initial: the permutation of the first ascent, in place of the grown one.
    leaves: the leaves that count: a regular expression or a predicate on (name,
      shape). By default all but running statistics of normalisation; the other
      leaves are permuted too, without effect on the choice.
    solver: an assignment solver, e.g. ``align.assign_lapx``.
    max_sweeps: the maximum number of sweeps over all groups, at least 1.
    tolerance: a group has changed if its part of the agreement increased by
      more than this fraction; an orthogonal map, if it removed 0.1 % of half
      the squared distance that was left.
    gauges: the kinds of maps to match, such as ``align.GAUGES`` for all that
      the symmetry has. A linear map without a balanced form, of heads of
      dependent units, is matched by rotations only, with a warning.
    progress: called after every visit.

  Returns:
    The permutation, for each group indices ``[*outer, n]``, and the tables of
    the actions of ``gauges`` by name; ``permute(moving, permutation,
    symmetry=symmetry)`` is close to ``fixed``.

  Raises:
    ValueError: if a model does not fit the symmetry or is not finite, naming
      the leaf; if ``starts`` or ``max_sweeps`` is less than 1; or if a kind of
      ``gauges`` is unknown.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> fixed = {'a': jnp.asarray([1.0, 2.0, 3.0])}
    >>> moving = {'a': jnp.asarray([2.1, 3.1, 1.1])}
    >>> found = weight_matching(
    ...   fixed, moving, symmetry=symmetry, key=jax.random.key(0)
    ... )
    >>> found['a:0'].tolist()
    [2, 0, 1]

  Reference: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
    Symmetries", 2022, arXiv:2209.04836, algorithm 1; rotations and heads:
    Theus et al., "Generalized Linear Mode Connectivity for Transformers", 2025,
    arXiv:2506.22712, whose code compares heads by their products, not by the
    best map between them.
  Differs from the official code, which starts from the current order (here
  ``initial=align.identity(symmetry)``), in the first ascent (it recovers
  planted permutations where those from the current order end in local optima)
  and in the perturbations; in the relative tolerance; in skipping groups whose
  neighbours did not change; and in nested and quadratic groups, which the
  official code does not support.
  """
  tree.check_scalars('weight_matching', tolerance=tolerance)
  _arguments.check_counts(
    'weight_matching', starts=starts, max_sweeps=max_sweeps
  )
  _arguments.check_kinds(gauges, 'weight_matching')
  _arguments.check_known('weight_matching', fixed, moving)
  for name, model in (('fixed', fixed), ('moving', moving)):
    _arguments.check_leaves(
      symmetry, tree.named(model), f'weight_matching: {name}'
    )
    reason = 'match its real and imaginary parts instead'
    tree.check_real('weight_matching', model, reason)
  if initial is not None:
    _permutation.check_permutation(
      initial, symmetry, 'weight_matching: initial'
    )
  view = views.of(symmetry, gauges)
  frames = balanced_pair.of(
    fixed, moving, view.symmetry, leaves, caller='weight_matching'
  )
  blocks = block_pairs.load(fixed, moving, view, leaves, frames)
  moves = schedule.moves(blocks, view)
  refinements = schedule.refinements(blocks, view, moves)
  room = cached_gains.room([*moves, *refinements], blocks)
  first = None
  if initial is not None:
    first = view.tables(balanced_pair.enter(frames, initial))
  best = -np.inf
  found: block_pairs.Tables | None = None
  twice = {move.group for move in moves if move.quadratic}
  for start in range(1 if starts == 1 else 3 * starts):
    # Visits to a group have similar gains, steps of Frank-Wolfe do not.
    solvers = view.solvers(solver) | {
      group.name: _assignment.with_memory(solver)
      for group in view.groups
      if group.kind == 'permutation' and group.name not in twice
    }
    rng = np.random.default_rng([start, *_seed(key)])
    state = first_guess.begin(
      start,
      blocks,
      moves,
      initial=first,
      best=found,
      view=view,
      solvers=solvers,
      rng=rng,
      room=room,
    )
    objective = state.agreement
    for sweep, group, gained in ascent.ascend(
      state,
      moves,
      refinements,
      base=blocks,
      outer_of=view.outer_of,
      solvers=solvers,
      rng=rng,
      max_sweeps=max_sweeps,
      tolerance=tolerance,
      room=room,
    ):
      objective += gained
      if progress is not None:
        progress(Visit(start, sweep, group, objective, gained))
    if objective > best:
      best, found = objective, state.tables
  found = ascent.polish(
    blocks,
    found or {},
    [m for m in [*moves, *refinements] if m.matrix and not m.quadratic],
    outer_of=view.outer_of,
    solvers=solvers,
  )
  return balanced_pair.leave(frames, view.element(found))


def _seed(key: types.PRNGKey) -> list[int]:
  """Returns the words of a key, to seed a numpy generator."""
  return np.asarray(jax.random.key_data(key)).ravel().tolist()
