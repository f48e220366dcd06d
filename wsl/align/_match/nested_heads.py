r"""Assignments within assignments, for groups that others depend on.

If units are permuted within heads, pairing head i with head j is worth the best
pairing of their units. So the outer assignment's gains are the values of inner
ones, all of which are solved at once:

.. math:: S[i, j] = S_0[i, j] + \sum_d \max_\tau \sum_p G_d[i, j, p, \tau(p)].

Where two inner groups meet in one block (queries of a head, and their units),
the value is bilinear in them: they take turns until neither changes.
"""

from typing import Any

import numpy as np

from wsl.align import _assignment
from wsl.align._match import labelled, weight_gains

_TURNS = 10  # of inner groups that meet in a block
_ENTRIES = 2**27  # of one table of products, before it is made in parts


def solve(
  blocks: list[weight_gains.Block],
  group: str,
  *,
  lead: weight_gains.Names,
  outers: dict[str, weight_gains.Names],
  solver: _assignment.Solver,
) -> weight_gains.Tables:
  """Pairs the units of a group and of those that depend on it.

  Args:
    blocks: blocks that have the group on exactly one axis, and no group that
      depends on it on more than one.
    group: a group.
    lead: the pinned factors that it depends on.
    outers: for each group the factors it depends on.
    solver: an assignment solver.

  Returns:
    Tables of the group and of those that depend on it, outer ones first,
    relative to the present order.
  """
  size = blocks[0].fixed.shape[blocks[0].names.index(group)]
  step = max(
    1, _ENTRIES * size // max(entries(b, group, outers) for b in blocks)
  )
  parts = []
  for start in range(0, size, step):
    grams = [
      _gram(block, group, slice(start, start + step), lead, outers)
      for block in blocks
    ]
    parts.append(_values(group, grams, lead, outers, solver))
  axis = len(lead)
  values = np.concatenate([value for value, _ in parts], axis)
  tables = {
    name: labelled.Labelled(
      np.concatenate([table[name].array for _, table in parts], axis), labels
    )
    for name, (_, labels) in parts[0][1].items()
  }
  chosen = _choose(group, values, tables, lead, solver)
  return {
    name: labelled.arrange(chosen[name], (*outers[name], name))
    for name in sorted(chosen, key=lambda name: len(outers[name]))
  }


def _inner(
  block: weight_gains.Block, group: str, outers: Any
) -> weight_gains.Names:
  return tuple(n for n in block.names if group in outers.get(n, ()))


def entries(
  block: weight_gains.Block, group: str, outers: dict[str, weight_gains.Names]
) -> int:
  """Returns how many products a block of a group makes."""
  inner = (group, *_inner(block, group, outers))
  total = 1
  for name, size in zip(block.names, block.fixed.shape):
    diagonal = any(name in outers[n] for n in inner)
    total *= size**2 if name in inner else size if diagonal else 1
  return total


def _gram(
  block: weight_gains.Block,
  group: str,
  rows: slice,
  lead: weight_gains.Names,
  outers: dict[str, weight_gains.Names],
) -> labelled.Labelled:
  """Contracts a block over all but nested groups, which get two indices."""
  names = block.names
  free = (group, *_inner(block, group, outers))
  diagonal = tuple(
    n
    for n in names
    if n not in free and (n in lead or any(n in outers[f] for f in free))
  )
  where = (slice(None),) * names.index(group) + (rows,)
  labels = weight_gains.unique(names, names.index(group))
  x = weight_gains.matrix(block.fixed[where], labels, diagonal, free)
  y = weight_gains.matrix(block.moving, labels, diagonal, free)
  sizes = dict(zip(names, block.moving.shape))
  shape = [sizes[name] for name in (*diagonal, *free)]
  part = [*shape]
  part[len(diagonal)] = len(range(*rows.indices(sizes[group])))
  gram = np.asarray(weight_gains.product(x, y))
  return labelled.Labelled(
    gram.reshape(*part, *shape[len(diagonal) :]),
    (*diagonal, *free, *map(labelled.old, free)),
  )


def _values(
  group: str,
  grams: list[labelled.Labelled],
  lead: weight_gains.Names,
  outers: dict[str, weight_gains.Names],
  solver: _assignment.Solver,
) -> tuple[np.ndarray, dict[str, labelled.Labelled]]:
  """Returns what each pair is worth, and the inner tables of each pair."""
  both = (*lead, group, labelled.old(group))
  inner = [gram for gram in grams if labelled.pairs(gram, both)]
  total: Any = 0.0
  for gram in grams:
    if not labelled.pairs(gram, both):
      total = total + labelled.arrange(gram, both)
  if not inner:
    return total, {}
  tables = _take_turns(inner, both, outers, solver)
  for gram in inner:
    reduced = labelled.reduce(gram, labelled.pairs(gram, both), tables)
    total = total + labelled.arrange(reduced, both)
  return total, tables


def _take_turns(
  grams: list[labelled.Labelled],
  lead: weight_gains.Names,
  outers: dict[str, weight_gains.Names],
  solver: _assignment.Solver,
) -> dict[str, labelled.Labelled]:
  """Solves for inner groups, each given the others."""
  names = {n for gram in grams for n in labelled.pairs(gram, lead)}
  direct = [n for n in names if not names & set(outers[n])]
  families = {
    d: {d, *(n for n in names if d in outers[n])} for d in sorted(direct)
  }
  others = [
    {
      d: [n for n in labelled.pairs(g, lead) if n not in families[d]]
      for d in direct
    }
    for g in grams
  ]
  member = lambda i, d: d in labelled.pairs(grams[i], lead)
  alone = {
    d: any(member(i, d) and not others[i][d] for i in range(len(grams)))
    for d in direct
  }
  order = sorted(families, key=lambda d: not alone[d])
  tables: dict[str, labelled.Labelled] = {}
  for _ in range(_TURNS):
    before = dict(tables)
    for d in order:
      mine = [i for i in range(len(grams)) if member(i, d)]
      known = [i for i in mine if all(n in tables for n in others[i][d])]
      parts = [
        labelled.reduce(grams[i], others[i][d], tables) for i in known or mine
      ]
      extra = tuple(
        o for o in outers[d] if o not in lead and o in parts[0].labels
      )
      tables |= _best(d, parts, (*lead, *extra), outers, solver)
    meet = any(
      others[i][d] for i in range(len(grams)) for d in order if member(i, d)
    )
    if not meet or (before and _same(before, tables)):
      break
  return tables


def _best(
  group: str,
  grams: list[labelled.Labelled],
  lead: weight_gains.Names,
  outers: dict[str, weight_gains.Names],
  solver: _assignment.Solver,
) -> dict[str, labelled.Labelled]:
  values, tables = _values(group, grams, lead, outers, solver)
  return _choose(group, values, tables, lead, solver)


def _choose(
  group: str,
  values: np.ndarray,
  tables: dict[str, labelled.Labelled],
  lead: weight_gains.Names,
  solver: _assignment.Solver,
) -> dict[str, labelled.Labelled]:
  """Pairs the units of a group; keeps the inner tables of those pairs."""
  indices = labelled.Labelled(np.asarray(solver(values)), (*lead, group))
  kept = {name: labelled.pick(x, group, indices) for name, x in tables.items()}
  return {group: indices} | kept


def _same(
  one: dict[str, labelled.Labelled], two: dict[str, labelled.Labelled]
) -> bool:
  return all(np.array_equal(one[n].array, two[n].array) for n in two)
