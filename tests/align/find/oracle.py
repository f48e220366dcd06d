"""A NumPy reference for permutations, by index arithmetic."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from wsl import align, tree


def move(params: Any, tables: Any, symmetry: align.Symmetry) -> Any:
  """Permutes every leaf; groups without a table are not permuted."""
  tables = {name: np.asarray(table) for name, table in tables.items()}

  def one(name: str, leaf: Any) -> np.ndarray:
    leaf = np.asarray(leaf)
    plan = symmetry.plan(name)
    used = {f.name for axis in plan for segment in axis for f in segment}
    if used.isdisjoint(tables):
      return leaf
    places = positions(symmetry, name)
    return gather(leaf, plan, places, lambda f, i: tables.get(f.name))

  return tree.map_named(one, params)


def move_once(
  params: Any, table: Any, symmetry: align.Symmetry, leaf: str, place: Any
) -> Any:
  """Permutes one occurrence of a group in one leaf."""
  table_of = lambda _, here: table if here == place else None

  def one(name: str, x: Any) -> np.ndarray:
    x = np.asarray(x)
    if name != leaf:
      return x
    return gather(x, symmetry.plan(name), positions(symmetry, name), table_of)

  return tree.map_named(one, params)


def positions(symmetry: align.Symmetry, leaf: str) -> list[Any]:
  """Returns the position of each entry of each segment of each axis.

  Entries are sorted by their segment and its indices. In an interleaved run
  the shared indices precede the segment.
  """
  found = []
  for a, axis in enumerate(symmetry.plan(leaf)):
    runs = [r[2:] for r in symmetry.interleaved if r[:2] == (leaf, a)]
    keys = []
    for s, segment in enumerate(axis):
      inside = sorted((k, i) for i, n, k in runs if i <= s < i + n)
      for index in np.ndindex(*(f.size for f in segment)):
        key, done = [], 0
        for shared, first in inside:
          key += [first, *index[done:shared]]
          done = shared
        keys.append((key + [s, *index[done:]], s, index))
    tables = [np.zeros([f.size for f in segment], int) for segment in axis]
    for i, (_, s, index) in enumerate(sorted(keys, key=lambda k: k[0])):
      tables[s][index] = i
    found.append(tables)
  return found


def gather(
  leaf: np.ndarray, plan: Any, places: list[Any], table_of: Any
) -> np.ndarray:
  """Gathers a leaf; ``table_of(factor, place)`` is its table or ``None``.

  A place is ``(axis, segment, position)``; ``places`` come from ``positions``.
  """
  new = leaf.copy()
  for cut in itertools.product(*(range(len(axis)) for axis in plan)):
    segments = [axis[i] for axis, i in zip(plan, cut)]
    here = [
      (a, cut[a], i) for a, s in enumerate(segments) for i in range(len(s))
    ]
    factors = [f for segment in segments for f in segment]
    names = [f.name for f in factors]
    index = np.indices([f.size for f in factors])
    source = list(index)
    for i, (factor, place) in enumerate(zip(factors, here)):
      table = table_of(factor, place)
      if table is not None:
        outer = [index[names.index(name)] for name in factor.outer]
        source[i] = table[(*outer, index[i])]
    tables = [rows[i] for rows, i in zip(places, cut)]
    new[_flat(index, tables)] = leaf[_flat(source, tables)]
  return new


def places(symmetry: align.Symmetry) -> dict[str, list[Any]]:
  """Returns where each factor occurs: ``(leaf, (axis, segment, position))``."""
  found: dict[str, list[Any]] = {f.name: [] for f in symmetry.factors}
  for leaf, axes in symmetry.axes:
    for a, axis in enumerate(axes):
      for s, segment in enumerate(axis):
        for i, name in enumerate(segment):
          found[name].append((leaf, (a, s, i)))
  return found


def blocks(plan: Any) -> list[list[align.Factor]]:
  """Returns the factors of each block of a leaf."""
  return [
    [factor for segment in segments for factor in segment]
    for segments in itertools.product(*plan)
  ]


def split_label(
  symmetry: align.Symmetry, leaf: str, place: Any
) -> align.Symmetry:
  """Renames one occurrence of a factor, so that it is permuted on its own.

  Factors that depended on it no longer do. That change alone would be sound.
  """
  a, s, i = place
  old = symmetry.factor[symmetry.leaf[leaf][a][s][i]]
  new = old._replace(name=old.name + '*')
  axes = [[list(t) for t in axis] for axis in symmetry.leaf[leaf]]
  axes[a][s][i] = new.name
  changed = tuple(tuple(tuple(t) for t in axis) for axis in axes)
  leaves = tuple(
    (name, changed if name == leaf else rest) for name, rest in symmetry.axes
  )
  factors = [
    x._replace(outer=tuple(n for n in x.outer if n != old.name))
    for x in symmetry.factors
  ]
  return align.Symmetry(
    (*factors, new), leaves, interleaved=symmetry.interleaved
  )


def replace(symmetry: align.Symmetry, factor: align.Factor) -> align.Symmetry:
  """Replaces the factor of the same name."""
  factors = (factor if f.name == factor.name else f for f in symmetry.factors)
  return dataclasses.replace(symmetry, factors=tuple(factors), actions=())


def unpin(symmetry: align.Symmetry, name: str) -> align.Symmetry:
  """Makes a pinned factor a group without outer factors."""
  factor = symmetry.factor[name]._replace(pinned='', outer=())
  return replace(symmetry, factor)


def _flat(index: Any, tables: Any) -> Any:
  """Converts indices of factors to indices of the leaf's axes."""
  rest, result = list(index), []
  for table in tables:
    own = [rest.pop(0) for _ in range(table.ndim)]
    result.append(table[tuple(own)])
  return tuple(np.broadcast_arrays(*result)) if result else ()
