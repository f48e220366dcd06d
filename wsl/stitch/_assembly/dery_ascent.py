"""Coordinate ascent on the clustering of blocks: k-medoids with movable cuts.

The objective F(cuts, centres, groups) is the total similarity of blocks to the
centres of their groups. Each move changes one argument. The medoids maximise F
over the centres for fixed groups, the nearest centres maximise it over the
groups for fixed centres, and a shifted cut is kept only if F rises. F takes
finitely many values, so the ascent ends in a local maximum.
"""

from collections.abc import Callable
import functools
import itertools
from typing import NamedTuple

import numpy as np

_LEAST_GAIN = 1e-9  # smaller gains are rounding errors and could cycle


class Nodes(NamedTuple):
  """The data of the problem.

  Attributes:
    similarity: ``[N, N]``, of nodes.
    first: ``[M]``, the first node of each network.
    most: for each network the maximal length of a block.
  """

  similarity: np.ndarray
  first: np.ndarray
  most: list[int]


class State(NamedTuple):
  """The arguments of the objective.

  Attributes:
    cuts: ``[M, K + 1]``, block boundaries of the M networks, 0 .. depth.
    groups: ``[M K]``, the group of each block, network by network.
    centres: ``[K]``, for each group the index of its centre among the blocks.
  """

  cuts: np.ndarray
  groups: np.ndarray
  centres: np.ndarray


def climb(
  nodes: Nodes, cuts: np.ndarray, centres: np.ndarray, iterations: int
) -> tuple[float, State, list[float]]:
  """Runs coordinate ascent from given cuts and centres.

  Returns:
    The objective, its argument, and the objective after each accepted move.
  """
  state = State(cuts, _nearest(nodes, cuts, centres), centres)
  history = [_value(nodes, state)]
  inner = range(1, cuts.shape[1] - 1)
  shifts: list[Callable[[Nodes, State], State]] = [
    functools.partial(_shift, network=m, cut=k, step=step)
    for m, k, step in itertools.product(range(len(cuts)), inner, (-1, 1))
  ]
  for _ in range(iterations):
    before = len(history)
    for move in (*shifts, _recentre, _reassign):
      proposed = move(nodes, state)
      value = _value(nodes, proposed)
      if value > history[-1] + _LEAST_GAIN:
        state = proposed
        history.append(value)
    if len(history) == before:
      break
  return history[-1], state, history


def _shift(
  nodes: Nodes, state: State, *, network: int, cut: int, step: int
) -> State:
  """Shifts one cut, if both adjacent blocks stay within their bounds."""
  cuts = state.cuts.copy()
  cuts[network, cut] += step
  sizes = np.diff(cuts[network])
  fits = sizes.min() >= 1 and sizes.max() <= nodes.most[network]
  return state._replace(cuts=cuts) if fits else state


def _recentre(nodes: Nodes, state: State) -> State:
  """Makes the medoid of each group its centre; a group contains its centre."""
  table = _table(nodes, state.cuts)
  centres = state.centres.copy()
  for g in range(len(centres)):
    own = np.flatnonzero(state.groups == g)
    centres[g] = own[np.argmax(table[np.ix_(own, own)].sum(0))]
  return state._replace(centres=centres)


def _reassign(nodes: Nodes, state: State) -> State:
  """Assigns each block to the group of the most similar centre."""
  return state._replace(groups=_nearest(nodes, state.cuts, state.centres))


def _nearest(nodes: Nodes, cuts: np.ndarray, centres: np.ndarray) -> np.ndarray:
  """Returns the group of the most similar centre for each block, ``[M K]``."""
  groups = np.argmax(_table(nodes, cuts)[:, centres], 1)
  # A centre stays in its own group, even if it is more similar to another one
  # than to itself, so that no group is ever empty.
  groups[centres] = np.arange(len(centres))
  return groups


def _table(nodes: Nodes, cuts: np.ndarray) -> np.ndarray:
  """Returns the similarities s(b, c) of all blocks, ``[M K, M K]``."""
  count = cuts.shape[1] - 1
  first = (cuts[:, :-1] + nodes.first[:, None]).ravel()
  last = (cuts[:, 1:] + nodes.first[:, None]).ravel() - 1
  s = nodes.similarity
  table = s[np.ix_(first, first)] + s[np.ix_(last, last)]
  # Two blocks of one network share no group: they would be neighbours in depth,
  # not alternatives for the same position.
  network = np.arange(len(first)) // count
  same = network[:, None] == network[None]
  return np.where(same & ~np.eye(len(first), dtype=bool), 0.0, table)


def _value(nodes: Nodes, state: State) -> float:
  """Returns the objective: similarities to the centres of the own groups."""
  table = _table(nodes, state.cuts)
  centre_of = state.centres[state.groups]
  return float(table[np.arange(len(centre_of)), centre_of].sum())
