"""Permutations and actions with NumPy: nothing is compiled."""

from typing import Any

import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _permutation, _symmetry
from wsl.align._gauges import elements


def permute(
  params: types.Params,
  permutation: _permutation.Permutation,
  symmetry: _symmetry.Symmetry,
) -> types.Params:
  """Permutes with NumPy, without compilation; otherwise like ``permute``.

  Groups without a table in ``permutation`` are not permuted.
  """
  tables: Any = {name: np.asarray(x) for name, x in permutation.items()}
  tables = elements.with_duals(symmetry, tables, np)

  def source(factors: _blocks.Factors, names: list[str]) -> list[np.ndarray]:
    # The block is gathered at one index array for each factor; the array of a
    # nested group is its table, looked up at the indices of outer factors.
    grid = np.indices([f.size for f in factors], sparse=True)
    index = list(grid)
    for i, factor in enumerate(factors):
      if factor.name in tables:
        outer = [grid[names.index(name)] for name in factor.outer]
        index[i] = tables[factor.name][(*outer, grid[i])]
    return index

  def one(name: str, leaf: Any) -> np.ndarray:
    x = np.asarray(leaf)
    layout = symmetry.layout(name)
    acts = elements.acts_of(symmetry, name, tables)
    used = {f.name for axis in symmetry.plan(name) for s in axis for f in s}
    if not acts and used.isdisjoint(tables):
      return x.copy()
    blocks = []
    cut = _blocks.to_blocks(x, layout)
    for block, factors, here in elements.with_acts(cut, acts):
      names = [f.name for f in factors]
      if not tables.keys().isdisjoint(names):
        block = block[tuple(source(factors, names))]
      if here:
        block = elements.act(block, factors, here, tables, np).astype(x.dtype)
      blocks.append(block)
    return np.array(_blocks.from_blocks(blocks, layout, np))

  return tree.map_named(one, params)
