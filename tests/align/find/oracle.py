"""A NumPy reference for permutations, by index arithmetic."""

import itertools
import math
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
    return gather(leaf, plan, lambda f, i: tables.get(f.name))

  return tree.map_named(one, params)


def move_once(
  params: Any, table: Any, symmetry: align.Symmetry, leaf: str, place: Any
) -> Any:
  """Permutes one occurrence of a group in one leaf."""
  table_of = lambda _, here: table if here == place else None

  def one(name: str, x: Any) -> np.ndarray:
    x = np.asarray(x)
    return gather(x, symmetry.plan(name), table_of) if name == leaf else x

  return tree.map_named(one, params)


def gather(leaf: np.ndarray, plan: Any, table_of: Any) -> np.ndarray:
  """Gathers a leaf; ``table_of(factor, place)`` is its table or ``None``.

  A place is ``(axis, segment, position)``.
  """
  new = leaf.copy()
  for cut in itertools.product(*(range(len(axis)) for axis in plan)):
    segments = [axis[i] for axis, i in zip(plan, cut)]
    places = [
      (a, cut[a], i) for a, s in enumerate(segments) for i in range(len(s))
    ]
    factors = [f for segment in segments for f in segment]
    names = [f.name for f in factors]
    index = np.indices([f.size for f in factors])
    source = list(index)
    for i, (factor, place) in enumerate(zip(factors, places)):
      table = table_of(factor, place)
      if table is not None:
        outer = [index[names.index(name)] for name in factor.outer]
        source[i] = table[(*outer, index[i])]
    new[_flat(index, segments, plan, cut)] = leaf[
      _flat(source, segments, plan, cut)
    ]
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
  return align.Symmetry((*factors, new), leaves)


def replace(symmetry: align.Symmetry, factor: align.Factor) -> align.Symmetry:
  """Replaces the factor of the same name."""
  factors = (factor if f.name == factor.name else f for f in symmetry.factors)
  return align.Symmetry(tuple(factors), symmetry.axes)


def unpin(symmetry: align.Symmetry, name: str) -> align.Symmetry:
  """Makes a pinned factor a group without outer factors."""
  factor = symmetry.factor[name]._replace(pinned='', outer=())
  return replace(symmetry, factor)


def _flat(index: Any, segments: Any, plan: Any, cut: Any) -> Any:
  """Converts indices of factors to indices of the leaf's axes."""
  rest, result = list(index), []
  for axis, segment, i in zip(plan, segments, cut):
    flat: Any = 0
    for factor in segment:
      flat = flat * factor.size + rest.pop(0)
    result.append(flat + sum(math.prod(f.size for f in s) for s in axis[:i]))
  return tuple(np.broadcast_arrays(*result)) if result else ()
