r"""Weight matching: the permutation that brings one model's weights near.

Groups are visited in random order; each takes the best assignment given all
others, so that the agreement of both models never falls.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _assignment, _permutation, _symmetry
from wsl.align._match import first_guess, load, schedule, updates, weight_gains


class Visit(NamedTuple):
  """What a step of weight matching did.

  Attributes:
    start: which start, from 0.
    sweep: which sweep over all groups, from 0.
    group: the group that was visited.
    objective: the agreement of both models after it, summed in float64.
    gained: by how much it grew, at least 0.
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
  leaves: types.Leaves = weight_gains.default_leaves,
  solver: _assignment.Solver = _assignment.assign_scipy,
  max_sweeps: int = 100,
  tolerance: float = 1e-6,
  progress: Callable[[Visit], None] | None = None,
) -> _permutation.Permutation:
  r"""Finds the permutation of a model that is nearest to another model.

  .. math:: \arg\max_\pi \sum_k \langle\theta^A_k, (\pi\theta^B)_k\rangle
     = \arg\min_\pi \lVert \theta^A - \pi\theta^B \rVert^2

  A first guess is grown from the inputs and outputs inwards; it stands if it is
  better than the present order. Then coordinate descent: one group after the
  other takes the best assignment given the rest, and is visited again only if
  one that shares a leaf with it has changed. A group on which others depend
  (heads, on which their units depend) is matched together with them; one that
  occurs twice in a tensor moves only where that is better. Runs on the host
  and is not traced; on an accelerator the products are made there.

  Args:
    fixed: the model that stays; in memory or on demand.
    moving: the model to be permuted, of the same leaves.
    symmetry: the symmetry of both.
    key: a random key, for the order of visits.
    starts: how many orders to try; the best agreement wins.
    initial: where to start instead of a guess.
    leaves: which leaves count: a regular expression or a predicate on (name,
      shape). By default all but running statistics of normalisation; those
      that do not count are permuted all the same.
    solver: an assignment solver, e.g. ``align.assign_lapx``.
    max_sweeps: the greatest number of sweeps over all groups.
    tolerance: a group has changed if its part of the agreement grew by more
      than this fraction.
    progress: called after every visit.

  Returns:
    The permutation; ``permute(moving, it, symmetry=symmetry)`` is near
    ``fixed``.

  Raises:
    ValueError: if a model is not of this symmetry or is not finite, naming the
      leaf.

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
    Symmetries", 2022, arXiv:2209.04836, algorithm 1.
  Differs from the official code, which starts from the order as it is, in the
  first guess (it finds planted permutations where descent alone is caught in a
  local optimum), in the relative tolerance, in skipping groups whose
  surroundings did not change, and in groups that depend on others or occur
  twice in a tensor, which it does not have.
  """
  if starts < 1 or max_sweeps < 1:
    raise ValueError(
      f'weight_matching: starts={starts}, max_sweeps={max_sweeps}: expected at '
      'least 1 of each'
    )
  for name, model in (('fixed', fixed), ('moving', moving)):
    _symmetry.check_leaves(
      symmetry, tree.named(model), f'weight_matching: {name}'
    )
  tables = _start(symmetry, initial)
  outers = {group.name: group.outer for group in symmetry.groups}
  blocks = load.load(fixed, moving, symmetry, leaves)
  if initial is not None:
    blocks = [weight_gains.moved(block, tables, outers) for block in blocks]
  moves = schedule.moves(blocks, symmetry)
  best = -np.inf
  for start in range(starts):
    rng = np.random.default_rng([start, *_seed(key)])
    pair = ([*blocks], {**tables})
    objective = float(weight_gains.agreement(blocks, ()))
    if initial is None:
      grown = first_guess.grow(
        *pair, moves, outers=outers, solver=solver, rng=rng
      )
      reached = float(weight_gains.agreement(grown[0], ()))
      if reached > objective:
        pair, objective = grown, reached
    for sweep, group, gained in _descend(
      *pair, moves, outers, solver, rng, max_sweeps, tolerance
    ):
      objective += gained
      if progress is not None:
        progress(Visit(start, sweep, group, objective, gained))
    if objective > best:
      best, found = objective, pair[1]
  return {name: jnp.asarray(table) for name, table in found.items()}


def _descend(
  blocks: list[weight_gains.Block],
  tables: weight_gains.Tables,
  moves: list[schedule.Move],
  outers: dict[str, weight_gains.Names],
  solver: _assignment.Solver,
  rng: np.random.Generator,
  max_sweeps: int,
  tolerance: float,
) -> Iterator[tuple[int, str, float]]:
  """Visits groups until none changes; ``blocks`` and ``tables`` follow."""
  touched = [{n for i in m.blocks for n in blocks[i].names} for m in moves]
  waiting = set(range(len(moves)))
  kept: updates.Kept = {}
  for sweep in range(max_sweeps):
    for index in rng.permutation(len(moves)):
      if index not in waiting:
        continue
      waiting.remove(index)
      move = moves[index]
      step = updates.step(move, blocks, outers, solver, kept)
      updates.take(move, step.tables, blocks, tables, outers, kept)
      if step.gained > tolerance * abs(step.value):
        near = (i for i, names in enumerate(touched) if names & move.family)
        waiting |= {*near} - {index}
      yield sweep, move.group, step.gained
    if not waiting:
      break


def _start(
  symmetry: _symmetry.Symmetry, initial: _permutation.Permutation | None
) -> weight_gains.Tables:
  if initial is None:
    shapes = {g.name: symmetry.table_shape(g.name) for g in symmetry.groups}
    return {
      name: np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape)
      for name, shape in shapes.items()
    }
  _permutation.check_permutation(initial, symmetry)
  return {g.name: np.asarray(initial[g.name]) for g in symmetry.groups}


def _seed(key: types.PRNGKey) -> list[int]:
  return np.asarray(jax.random.key_data(key)).ravel().tolist()
