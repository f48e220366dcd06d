r"""Assignments within assignments, for groups that others depend on.

If units are permuted within heads, pairing head i with head j is worth the best
pairing of their units. So the outer assignment's gains are the values of inner
ones, all of which are solved at once:

.. math:: S[i, j] = S_0[i, j] + \sum_d \max_\tau \sum_p G_d[i, j, p, \tau(p)].

Where two inner groups meet in one block (queries of a head, and their units),
the value is bilinear in them: they take turns until neither changes.
"""

from typing import Any, NamedTuple

import numpy as np

from wsl.align import _assignment, _gains

_TURNS = 10  # of inner groups that meet in a block
_ENTRIES = 2**27  # of one table of products, before it is made in parts


class Labelled(NamedTuple):
  """An array and a label for each axis.

  The new index of a group g is called ``g``, the old one ``g'``.
  """

  array: np.ndarray
  labels: _gains.Names


def solve(
  blocks: list[_gains.Block],
  group: str,
  *,
  lead: _gains.Names,
  outers: dict[str, _gains.Names],
  solver: _assignment.Solver,
) -> _gains.Tables:
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
    name: Labelled(
      np.concatenate([table[name].array for _, table in parts], axis), labels
    )
    for name, (_, labels) in parts[0][1].items()
  }
  chosen = _choose(group, values, tables, lead, solver)
  return {
    name: _arrange(chosen[name], (*outers[name], name))
    for name in sorted(chosen, key=lambda name: len(outers[name]))
  }


def _inner(block: _gains.Block, group: str, outers: Any) -> _gains.Names:
  return tuple(n for n in block.names if group in outers.get(n, ()))


def entries(
  block: _gains.Block, group: str, outers: dict[str, _gains.Names]
) -> int:
  """Returns how many products a block of a group makes."""
  inner = (group, *_inner(block, group, outers))
  total = 1
  for name, size in zip(block.names, block.fixed.shape):
    diagonal = any(name in outers[n] for n in inner)
    total *= size**2 if name in inner else size if diagonal else 1
  return total


def _gram(
  block: _gains.Block,
  group: str,
  rows: slice,
  lead: _gains.Names,
  outers: dict[str, _gains.Names],
) -> Labelled:
  """Contracts a block over all but nested groups, which get two indices."""
  names = block.names
  free = (group, *_inner(block, group, outers))
  diagonal = tuple(
    n
    for n in names
    if n not in free and (n in lead or any(n in outers[f] for f in free))
  )
  where = (slice(None),) * names.index(group) + (rows,)
  labels = _gains.unique(names, names.index(group))
  x = _gains.matrix(block.fixed[where], labels, diagonal, free)
  y = _gains.matrix(block.moving, labels, diagonal, free)
  sizes = dict(zip(names, block.moving.shape))
  shape = [sizes[name] for name in (*diagonal, *free)]
  part = [*shape]
  part[len(diagonal)] = len(range(*rows.indices(sizes[group])))
  gram = np.asarray(_gains.product(x, y))
  return Labelled(
    gram.reshape(*part, *shape[len(diagonal) :]),
    (*diagonal, *free, *map(_old, free)),
  )


def _values(
  group: str,
  grams: list[Labelled],
  lead: _gains.Names,
  outers: dict[str, _gains.Names],
  solver: _assignment.Solver,
) -> tuple[np.ndarray, dict[str, Labelled]]:
  """Returns what each pair is worth, and the inner tables of each pair."""
  both = (*lead, group, _old(group))
  inner = [gram for gram in grams if _nested_in(gram, both)]
  total: Any = 0.0
  for gram in grams:
    if not _nested_in(gram, both):
      total = total + _arrange(gram, both)
  if not inner:
    return total, {}
  tables = _take_turns(inner, both, outers, solver)
  for gram in inner:
    reduced = _reduce(gram, _nested_in(gram, both), tables)
    total = total + _arrange(reduced, both)
  return total, tables


def _take_turns(
  grams: list[Labelled],
  lead: _gains.Names,
  outers: dict[str, _gains.Names],
  solver: _assignment.Solver,
) -> dict[str, Labelled]:
  """Solves for inner groups, each given the others."""
  names = {n for gram in grams for n in _nested_in(gram, lead)}
  direct = [n for n in names if not names & set(outers[n])]
  families = {
    d: {d, *(n for n in names if d in outers[n])} for d in sorted(direct)
  }
  others = [
    {
      d: [n for n in _nested_in(g, lead) if n not in families[d]]
      for d in direct
    }
    for g in grams
  ]
  member = lambda i, d: d in _nested_in(grams[i], lead)
  alone = {
    d: any(member(i, d) and not others[i][d] for i in range(len(grams)))
    for d in direct
  }
  order = sorted(families, key=lambda d: not alone[d])
  tables: dict[str, Labelled] = {}
  for _ in range(_TURNS):
    before = dict(tables)
    for d in order:
      mine = [i for i in range(len(grams)) if member(i, d)]
      known = [i for i in mine if all(n in tables for n in others[i][d])]
      parts = [_reduce(grams[i], others[i][d], tables) for i in known or mine]
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
  grams: list[Labelled],
  lead: _gains.Names,
  outers: dict[str, _gains.Names],
  solver: _assignment.Solver,
) -> dict[str, Labelled]:
  values, tables = _values(group, grams, lead, outers, solver)
  return _choose(group, values, tables, lead, solver)


def _choose(
  group: str,
  values: np.ndarray,
  tables: dict[str, Labelled],
  lead: _gains.Names,
  solver: _assignment.Solver,
) -> dict[str, Labelled]:
  """Pairs the units of a group; keeps the inner tables of those pairs."""
  indices = Labelled(np.asarray(solver(values)), (*lead, group))
  kept = {name: _pick(x, group, indices) for name, x in tables.items()}
  return {group: indices} | kept


def _reduce(
  gram: Labelled, names: list[str], tables: dict[str, Labelled]
) -> Labelled:
  """Takes from the old indices of some groups what tables pair them with.

  A group without a table stays in its present order.
  """
  for name in names:
    size = gram.array.shape[gram.labels.index(name)]
    stay = Labelled(np.arange(size), (name,))
    gram = _pick(gram, name, tables.get(name, stay))
  return gram


def _pick(x: Labelled, name: str, table: Labelled) -> Labelled:
  axis = x.labels.index(_old(name))
  order = [label for label in x.labels if label in table.labels]
  index = _arrange(table, tuple(order))
  missing = [i for i, n in enumerate(x.labels) if n not in table.labels]
  index = np.expand_dims(index, missing)
  array = np.take_along_axis(x.array, index, axis).squeeze(axis)
  return Labelled(array, (*x.labels[:axis], *x.labels[axis + 1 :]))


def _arrange(x: Labelled, wanted: _gains.Names) -> np.ndarray:
  """Brings axes into an order; sums over those that are not wanted."""
  axes = tuple(i for i, n in enumerate(x.labels) if n not in wanted)
  labels = [n for n in x.labels if n in wanted]
  array = x.array.sum(axes) if axes else x.array
  return array.transpose([labels.index(n) for n in wanted])


def _nested_in(gram: Labelled, lead: _gains.Names) -> list[str]:
  """Names the groups of a gram that have two indices and are not leading."""
  return [n for n in gram.labels if _old(n) in gram.labels and n not in lead]


def _same(one: dict[str, Labelled], two: dict[str, Labelled]) -> bool:
  return all(np.array_equal(one[n].array, two[n].array) for n in two)


def _old(name: str) -> str:
  return name + "'"
