"""Coordinate descent over the couplings of all groups."""

from typing import NamedTuple

import numpy as np

from wsl.align import _symmetry
from wsl.align._transport import blocks as blocks_lib
from wsl.align._transport import carry, costs, couplings

_MAX_ROUNDS = 5  # of alternation between dependents of one group
_TOLERANCE = 1e-7  # relative gain above which neighbours are visited again


class Setting(NamedTuple):
  """The constants of a search.

  Attributes:
    blocks: of both models.
    symmetry: of the fixed model.
    masses: of the units of every group.
    problem: the kind of the couplings.
  """

  blocks: list[blocks_lib.Block]
  symmetry: _symmetry.Symmetry
  masses: dict[str, costs.Masses]
  problem: couplings.Problem


class State(NamedTuple):
  """A point of the search.

  Attributes:
    couplings: for each group ``[*outer, *free outer, n, m]``.
    maps: their matrices.
    distances: of each block, the squared distance of the fixed block from the
      carried one.
  """

  couplings: blocks_lib.Couplings
  maps: dict[str, carry.Maps]
  distances: tuple[float, ...]

  @property
  def distance(self) -> float:
    """The squared distance of the models."""
    return float(np.sum(self.distances))


class Move(NamedTuple):
  """Groups that are coupled together.

  Attributes:
    groups: a group that depends on no other one, after all that depend on it;
      inner groups first.
    blocks: the indices of the blocks that have one of them.
    alternate: whether two of them that do not depend on each other share a
      block.
  """

  groups: tuple[str, ...]
  blocks: tuple[int, ...]
  alternate: bool


def moves(setting: Setting) -> list[Move]:
  """Lists moves that together couple every group of the blocks."""
  found = []
  free = {g.name: g for g in setting.symmetry.groups}
  present = [{a.group for a in b.axes} - {''} for b in setting.blocks]
  for group in setting.symmetry.groups:
    if any(name in free for name in group.outer):
      continue
    below = [g.name for g in free.values() if group.name in g.outer]
    below.sort(key=lambda name: -len(free[name].outer))
    names = (*below, group.name)
    mine = tuple(i for i, p in enumerate(present) if p & {*names})
    pairs = [(a, b) for a in below for b in below if a < b]
    siblings = [
      (a, b)
      for a, b in pairs
      if a not in free[b].outer and b not in free[a].outer
    ]
    shared = any({a, b} <= present[i] for a, b in siblings for i in mine)
    if mine:
      found.append(Move(names, mine, shared))
  return found


def begin(setting: Setting, start: blocks_lib.Couplings) -> State:
  """Returns the state with given couplings."""
  maps = {name: _maps(setting, name, x) for name, x in start.items()}
  distances = tuple(_distance(block, maps) for block in setting.blocks)
  return State(start, maps, distances)


def independent(setting: Setting) -> blocks_lib.Couplings:
  """Returns the product couplings, in which all partners are alike."""
  return {
    name: rows[..., None] * columns[..., None, :] / rows.shape[-1]
    for name in setting.masses
    for rows, columns in [_marginals(setting, name)]
  }


def diagonal(setting: Setting) -> blocks_lib.Couplings:
  """Returns the couplings of units of equal index, modulo the smaller width."""
  found = {}
  for name in setting.masses:
    rows, columns = _marginals(setting, name)
    n, m = rows.shape[-1], columns.shape[-1]
    i, j = np.arange(n)[:, None], np.arange(m)
    partners = (i % m == j) if n >= m else (j % n == i)
    mass = rows[..., None] if n >= m else columns[..., None, :]
    # The other side's masses are not those of the transport, only its shape.
    shape = np.broadcast_shapes(rows.shape[:-1], columns.shape[:-1])
    found[name] = np.broadcast_to(partners * mass, (*shape, n, m))
  return found


def grow(setting: Setting, state: State, moves: list[Move]) -> State:
  """Couples every group once, from the groups that are coupled already.

  Each move uses the blocks whose other groups are all coupled (or pinned), and
  the next move is the one for which these blocks hold the largest share of the
  entries, as in weight matching.
  """
  waiting = [*moves]
  unknown = {name for move in moves for name in move.groups}
  while waiting:
    usable = [_usable(setting, move, unknown) for move in waiting]
    sizes = [block.fixed.size for block in setting.blocks]
    shares = [
      sum(sizes[i] for i in indices) / sum(sizes[i] for i in move.blocks)
      for move, indices in zip(waiting, usable)
    ]
    best = int(np.argmax(shares))
    move, indices = waiting.pop(best), usable[best]
    state = propose(setting, state, move, indices or move.blocks)
    unknown -= {*move.groups}
  return state


def descend(
  setting: Setting, state: State, moves: list[Move], max_sweeps: int
) -> tuple[State, list[float]]:
  """Visits all moves until none lowers the distance.

  Returns:
    The last state, and the distance before and after each sweep.
  """
  present = [
    {a.group for i in move.blocks for a in setting.blocks[i].axes}
    for move in moves
  ]
  waiting, trace = set(range(len(moves))), [state.distance]
  for _ in range(max_sweeps):
    for index, move in enumerate(moves):
      if index not in waiting:
        continue
      waiting.remove(index)
      step = propose(setting, state, move, move.blocks)
      # A proposal minimises the transport cost, which differs from the distance
      # where partners are averaged: it is kept only if that falls as well.
      gained = state.distance - step.distance
      if gained <= 0:
        continue
      state = step
      if gained > _TOLERANCE * state.distance:
        changed = {*move.groups}
        near = {i for i, names in enumerate(present) if names & changed}
        waiting |= near - {index}
    trace.append(state.distance)
    if not waiting:
      break
  return state, trace


def propose(
  setting: Setting, state: State, move: Move, usable: tuple[int, ...]
) -> State:
  """Returns the state with new couplings of the groups of a move.

  The cost of a pair of heads includes that of the best coupling of their units:
  inner groups are solved first, for every pair of outer indices.
  """
  found, maps = dict(state.couplings), dict(state.maps)
  for _ in range(_MAX_ROUNDS if move.alternate else 1):
    before = dict(found)
    for name in move.groups:
      blocks = [setting.blocks[i] for i in usable]
      mine = [b for b in blocks if any(a.group == name for a in b.axes)]
      if not mine:
        continue
      parts = [
        costs.cost(block, name, found, maps, setting.masses) for block in mine
      ]
      rows, columns = _marginals(setting, name)
      total = sum(parts[1:], parts[0])
      found[name] = couplings.solve(total, rows, columns, setting.problem)
      maps[name] = _maps(setting, name, found[name])
    if all(np.array_equal(before[n], found[n]) for n in move.groups):
      break
  distances = [*state.distances]
  for i in move.blocks:
    distances[i] = _distance(setting.blocks[i], maps)
  return State(found, maps, tuple(distances))


def _usable(setting: Setting, move: Move, unknown: set[str]) -> tuple[int, ...]:
  """Returns the blocks of a move in which every other group is coupled."""
  others = unknown - {*move.groups}
  return tuple(
    i
    for i in move.blocks
    if not others & {axis.group for axis in setting.blocks[i].axes}
  )


def _marginals(setting: Setting, name: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the masses, spread over the outer indices of both models."""
  factor, masses = setting.symmetry.factor[name], setting.masses[name]
  free = [not setting.symmetry.factor[o].pinned for o in factor.outer]
  outer, old = range(len(free)), sum(free)
  rows = np.expand_dims(masses.fixed, tuple(range(len(free), len(free) + old)))
  # Free outer axes of the moving masses are old indices, after all new ones.
  order = (*sorted(outer, key=lambda i: free[i]), len(free))
  columns = np.expand_dims(
    masses.moving.transpose(order), tuple(i for i in outer if free[i])
  )
  return rows, columns


def _maps(setting: Setting, name: str, coupling: np.ndarray) -> carry.Maps:
  """Returns the matrices of a coupling of a group."""
  if setting.problem.unbalanced is None:
    return carry.maps_of(coupling)
  return carry.maps_of(coupling, _marginals(setting, name)[1])


def _distance(block: blocks_lib.Block, maps: dict[str, carry.Maps]) -> float:
  """Returns the squared distance of the fixed block from the carried one."""
  return float(np.square(block.fixed - carry.carry(block, maps)).sum())
