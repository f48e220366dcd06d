"""Coordinate descent over the couplings of all groups."""

from typing import NamedTuple

import numpy as np

from wsl.align._transport import blocks as blocks_lib
from wsl.align._transport import carry, costs, couplings
from wsl.align._transport import moves as moves_lib
from wsl.align._transport import setting as setting_lib

_MAX_ROUNDS = 5  # of alternation between dependents of one group
_TOLERANCE = 1e-7  # relative gain above which neighbours are visited again


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


def begin(setting: setting_lib.Setting, start: blocks_lib.Couplings) -> State:
  """Returns the state with given couplings."""
  maps = {name: _maps(setting, name, x) for name, x in start.items()}
  distances = tuple(_distance(block, maps) for block in setting.blocks)
  return State(start, maps, distances)


def grow(
  setting: setting_lib.Setting, state: State, moves: list[moves_lib.Move]
) -> tuple[State, set[int]]:
  """Couples every group once, from the groups that are coupled already.

  Each move uses the blocks whose other groups are all coupled (or pinned), and
  the next move is the one for which these blocks hold the largest share of the
  entries, as in weight matching.

  Returns:
    The state, and the indices of the moves that used all of their blocks: no
    other group of these changed afterwards, so they are solved.
  """
  waiting, solved = [*range(len(moves))], set()
  unknown = {name for move in moves for name in move.groups}
  while waiting:
    usable = [moves_lib.usable(setting, moves[i], unknown) for i in waiting]
    sizes = [block.fixed.size for block in setting.blocks]
    shares = [
      sum(sizes[i] for i in indices) / sum(sizes[i] for i in moves[k].blocks)
      for k, indices in zip(waiting, usable)
    ]
    best = int(np.argmax(shares))
    index, indices = waiting.pop(best), usable[best]
    move = moves[index]
    if len(indices) == len(move.blocks) and not move.repeated:
      solved.add(index)
    state = propose(setting, state, move, indices or move.blocks)
    unknown -= {*move.groups}
  return state, solved


def descend(
  setting: setting_lib.Setting,
  state: State,
  moves: list[moves_lib.Move],
  *,
  solved: set[int],
  max_sweeps: int,
) -> tuple[State, list[float]]:
  """Visits moves until none lowers the distance.

  Args:
    setting: the constants of the search.
    state: the start.
    moves: all moves.
    solved: the indices of those that would change nothing.
    max_sweeps: the maximum number of sweeps.

  Returns:
    The last state, and the distance before and after each sweep.
  """
  present = [
    {a.group for i in move.blocks for a in setting.blocks[i].axes}
    for move in moves
  ]
  waiting, trace = {*range(len(moves))} - solved, [state.distance]
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
  setting: setting_lib.Setting,
  state: State,
  move: moves_lib.Move,
  usable: tuple[int, ...],
) -> State:
  """Returns the state with new couplings of the groups of a move.

  The cost of a pair of heads includes that of the best coupling of their units:
  inner groups are solved first, for every pair of outer indices.
  """
  # The cost is sum_oo' T[o, o'] (S[o, o'] + <T_oo', C_oo'>) with T[o, o'] >= 0:
  # each T_oo' can be minimised on its own, whatever T is.
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
      rows, columns = setting_lib.marginals(setting, name)
      total = sum(parts[1:], parts[0])
      found[name] = couplings.solve(total, rows, columns, setting.problem)
      maps[name] = _maps(setting, name, found[name])
    if all(np.array_equal(before[n], found[n]) for n in move.groups):
      break
  distances = [*state.distances]
  for i in move.blocks:
    distances[i] = _distance(setting.blocks[i], maps)
  return State(found, maps, tuple(distances))


def _maps(
  setting: setting_lib.Setting, name: str, coupling: np.ndarray
) -> carry.Maps:
  """Returns the matrices of a coupling of a group."""
  if setting.problem.unbalanced is None:
    return carry.maps_of(coupling)
  return carry.maps_of(coupling, setting_lib.marginals(setting, name)[1])


def _distance(block: blocks_lib.Block, maps: dict[str, carry.Maps]) -> float:
  """Returns the squared distance of the fixed block from the carried one."""
  return float(np.square(block.fixed - carry.carry(block, maps)).sum())
