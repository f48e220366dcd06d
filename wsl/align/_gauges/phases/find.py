"""The phases of a traced function: where each acts."""

from collections.abc import Sequence
import itertools
from typing import NamedTuple

import numpy as np
from scipy import sparse

from wsl.align import _symmetry
from wsl.align._find import axis_facts, axis_tree
from wsl.align._gauges.phases import candidates, forms, halves, rules

_RANKS = 3  # pinned factors of size 2 of a segment that are tried as the pair


class Found(NamedTuple):
  """The phases of a function.

  Attributes:
    joined: the symmetry whose axes have a factor for the two parts of numbers.
    actions: the actions, without names.
    reasons: of other pairs, by the factor, the operation that prevents a phase.
  """

  joined: halves.Joined
  actions: list[_symmetry.Action]
  reasons: dict[str, str]


def find(facts: axis_facts.Facts, permutations: _symmetry.Symmetry) -> Found:
  """Finds the phases of a function.

  Args:
    facts: the equations.
    permutations: the symmetry without actions.
  """
  symmetry = halves.join(permutations).symmetry
  actions: list[_symmetry.Action] = []
  reasons: dict[str, str] = {}
  for rank in range(_RANKS):
    taken = [p[:3] for action in actions for p in action.powers]
    c = forms.begin(facts)
    found = candidates.add(c, facts, symmetry, taken, rank)
    if not found:
      break
    for step in facts.steps:
      rules.apply(c, step)
    for value in facts.fixed:
      forms.fail(c, forms.state(c, value), 'it is an output of the function')
    classes = _classes(c, found)
    for group in classes.groups:
      reason = classes.reason(group)
      action = None if reason else _action(symmetry, group, classes)
      if isinstance(action, _symmetry.Action):
        actions.append(action)
        continue
      for x in group:
        for name in symmetry.leaf[x.leaf][x.axis][x.segment]:
          if symmetry.factor[name].pinned:
            reasons.setdefault(name, action or reason)
  used = {p[:2] for action in actions for p in action.powers}
  joined = halves.join(permutations, used)
  names = {*joined.symmetry.factor} - {
    name
    for action in actions
    for p in action.powers
    for name in joined.symmetry.leaf[p.leaf][p.axis][p.segment]
  }
  reasons = {name: why for name, why in reasons.items() if name in names}
  return Found(joined, actions, reasons)


class _Classes(NamedTuple):
  """Classes of phases that are equal, or opposite.

  Attributes:
    groups: candidates that share phases.
    root: the class of each phase.
    colour: 1 where a phase is opposite to that of the class.
    unit: whether phases have the modulus 1.
    reasons: why a phase is 1; by its number.
  """

  groups: list[list[candidates.Candidate]]
  root: np.ndarray
  colour: np.ndarray
  unit: np.ndarray
  reasons: dict[int, str]

  def reason(self, group: Sequence[candidates.Candidate]) -> str:
    """Returns why the phases of a group are 1; '' if they are free."""
    roots = np.concatenate([self.root[x.phases].ravel() for x in group])
    found = (self.reasons.get(r) for r in np.unique(roots).tolist())
    return next((reason for reason in found if reason), '')


def _classes(
  c: forms.Phases, found: Sequence[candidates.Candidate]
) -> _Classes:
  """Returns the classes of phases that links make equal or opposite."""
  count = sum(x.phases.size for x in found)
  # Node 2 z of the graph is z, and node 2 z + 1 is 1 / conj(z): a link of equal
  # phases has the edges (2 a, 2 b) and (2 a + 1, 2 b + 1), one of opposite
  # phases (2 a, 2 b + 1) and (2 a + 1, 2 b). Where both nodes of a phase are
  # connected, z = 1 / conj(z): its modulus is 1.
  edges = [np.zeros((2, 0), np.int64)]
  used = [np.zeros(0, np.int64)]
  for a, b, opposite in c.links:
    pair = np.stack([x.ravel() for x in np.broadcast_arrays(a, b)])
    pair = pair[:, (pair >= 0).all(0)]
    if opposite:
      used.append(pair.ravel())
    turn = np.asarray([[0], [int(opposite)]])
    edges += [2 * pair + turn, 2 * pair + (1 - turn if opposite else 1)]
  label = _components(np.concatenate(edges, 1), 2 * count)
  one, other = label[::2], label[1::2]
  root = np.minimum(one, other)
  contracted = root[np.concatenate(used)]
  unused = np.flatnonzero(~np.isin(root, contracted))
  reasons: dict[int, str] = {}
  for phases, why in (*c.failed, (unused, axis_tree.UNUSED)):
    for r in np.unique(root[phases[phases >= 0]]).tolist():
      reasons.setdefault(r, why)
  groups = _groups(found, root)
  return _Classes(
    groups, root, (one > other).astype(int), one == other, reasons
  )


def _components(edges: np.ndarray, count: int) -> np.ndarray:
  """Returns the connected component of each node, from edges ``[2, n]``."""
  ones = np.ones(edges.shape[1], bool)
  graph = sparse.coo_matrix((ones, tuple(edges)), (count, count))
  return sparse.csgraph.connected_components(graph, directed=False)[1]


def _groups(
  found: Sequence[candidates.Candidate], root: np.ndarray
) -> list[list[candidates.Candidate]]:
  """Groups candidates that share a class of phases, directly or by others."""
  # A bipartite graph of candidates and classes.
  edges = [
    (i, len(found) + r)
    for i, x in enumerate(found)
    for r in np.unique(root[x.phases]).tolist()
  ]
  count = len(found) + int(root.max(initial=-1)) + 1
  label = _components(np.asarray(edges).T, count)
  groups: dict[int, list[candidates.Candidate]] = {}
  for k, x in zip(label.tolist(), found):
    groups.setdefault(k, []).append(x)
  return list(groups.values())


def _action(
  symmetry: _symmetry.Symmetry,
  group: Sequence[candidates.Candidate],
  classes: _Classes,
) -> _symmetry.Action | str:
  """Returns the action of phases over factors, or why there is none."""
  stacks = {x.stacks for x in group}
  stack = stacks.pop() if len(stacks) == 1 else ()
  names: tuple[str, ...] | None = None
  powers = []
  roots = colours = np.zeros(0)
  for x in group:
    root, colour = classes.root[x.phases], classes.colour[x.phases]
    # Factors along which phases are equal, such as that of the queries which
    # read one key, do not index the numbers.
    own = tuple(n for i, n in enumerate(x.over) if not _constant_along(root, i))
    index = tuple(slice(None) if n in own else 0 for n in x.over)
    root, colour = root[index], colour[index]
    if names is None:
      names, roots, colours = own, root, colour
    if set(own) != set(names) or len(own) != len(set(own)):
      return 'heads and frequencies that differ between leaves'
    order = [own.index(n) for n in names]
    root, colour = np.transpose(root, order), np.transpose(colour, order)
    turn = np.unique(colour ^ colours)
    if (root != roots).any() or len(turn) > 1:
      return 'heads and frequencies in another order'
    powers.append(_power(x, -1.0 if turn.item() else 1.0))
  assert names is not None
  if len(np.unique(roots)) < roots.size:
    return 'frequencies that are equal for some heads only'
  over = (*stack, *names)
  for name in over:
    if not {*symmetry.factor[name].outer} <= {*over}:
      return 'heads that are permuted differently in each layer'
  for x in group:
    if not _once(symmetry, x, over):
      return 'an axis of heads that occurs twice'
  first = min(group, key=lambda x: [*symmetry.leaf].index(x.leaf))
  pair = symmetry.leaf[first.leaf][first.axis][first.segment][first.pair]
  unit = any(classes.unit[x.phases].any() for x in group)
  rank = {name: i for i, name in enumerate(symmetry.leaf)}
  powers.sort(key=lambda p: (rank[p.leaf], p[1:4]))
  return _symmetry.Action('', 'phase', pair, tuple(powers), False, over, unit)


def _power(x: candidates.Candidate, power: float) -> _symmetry.Power:
  """Returns where, and with which power, a phase acts on a leaf."""
  return _symmetry.Power(x.leaf, x.axis, x.segment, x.pair, power)


def _constant_along(x: np.ndarray, axis: int) -> bool:
  """Returns True if an array does not vary along an axis."""
  return bool((x == np.take(x, [0], axis)).all())


def _once(
  symmetry: _symmetry.Symmetry, x: candidates.Candidate, over: Sequence[str]
) -> bool:
  """Returns True if each block of a segment has each factor once."""
  plan = symmetry.leaf[x.leaf]
  rows = [
    [axis[x.segment]] if i == x.axis else axis for i, axis in enumerate(plan)
  ]
  for block in itertools.product(*rows):
    factors = [*itertools.chain(*block)]
    if any(factors.count(name) != 1 for name in over):
      return False
  return True
