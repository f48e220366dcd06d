"""Pairs of blocks: the same part of a leaf in two models, one axis per factor.

Weight matching works on a list of such pairs, numpy arrays on the host.
Accelerators are not used: the assignments run on the host in any case and take
longer than the products, which have ever new shapes (each would be compiled).
"""

from collections.abc import Callable, Mapping
import math
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _blocks
from wsl.align._gauges import balanced_pair, elements, views
from wsl.align._solvers import row_blocks

Names: TypeAlias = tuple[str, ...]
# On the host; for each group indices, or matrices of floats.
Tables: TypeAlias = dict[str, np.ndarray]
# For each group its table from gains ``[*outer, n, n]``.
Solvers: TypeAlias = Mapping[str, Callable[[Any], Any]]

_WRITTEN = 8  # columns are written if at most one of so many is moved


class BlockPair(NamedTuple):
  """One block of one leaf in both models.

  Attributes:
    names: the factor of each axis, or the action on it.
    fixed: ``[*sizes]``, the block of the fixed model.
    moving: ``[*sizes]``, the block of the moving model in its current order.
  """

  names: Names
  fixed: np.ndarray
  moving: np.ndarray


def load(
  fixed: types.Params,
  moving: types.Params,
  view: views.View,
  leaves: types.Leaves,
  frames: balanced_pair.Frames,
) -> list[BlockPair]:
  """Reads the selected float leaves of two models as blocks.

  Args:
    fixed: the fixed model; in memory or on demand.
    moving: the moving model, of the same leaves.
    view: the groups to match.
    leaves: selects leaves by name and shape.
    frames: the maps to the balanced models.

  Returns:
    The pairs of blocks, in float32 or wider.

  Raises:
    ValueError: naming the leaf that is not finite.
  """
  selected = tree.named(tree.select(fixed, leaves))
  moving_leaves = tree.named(moving)
  blocks = []
  for name, leaf in tree.named(fixed).items():
    if not (selected[name] and jnp.issubdtype(leaf.dtype, jnp.floating)):
      continue
    x = _read_finite(leaf, 'fixed', name)
    y = _read_finite(moving_leaves[name], 'moving', name)
    dtype, layout = tree.wide_dtype(x, y), view.symmetry.layout(name)
    cut_x, cut_y = (
      balanced_pair.apply(
        tables,
        view.symmetry,
        name,
        _blocks.to_blocks(v.astype(dtype, copy=False), layout),
      )
      for tables, v in ((frames.fixed, x), (frames.moving, y))
    )
    pairs = zip(view.names(name), cut_x, cut_y)
    for names, a, b in pairs:
      signs = (1,) * (len(names) - a.ndim)
      a, b = (v.reshape(v.shape + signs) for v in (a, b))
      blocks.append(BlockPair(names, a, b))
  return blocks


def permute_moving(
  block: BlockPair, tables: Tables, outer_of: dict[str, Names]
) -> BlockPair:
  """Returns a block pair with the moving model's block permuted."""
  moving = gather(block.moving, block.names, tables, outer_of)
  return block._replace(moving=moving)


def gather(
  x: np.ndarray, names: Names, tables: Tables, outer_of: dict[str, Names]
) -> np.ndarray:
  """Permutes or multiplies the axes of a block by the tables of some groups.

  Args:
    x: ``[*sizes]``, a block.
    names: the factor of each axis.
    tables: for some groups indices ``[*outer, n]`` or matrices ``[*outer, n,
      n]``, outer groups first.
    outer_of: for each group the factors on which its permutation depends.

  Returns:
    The permuted block.
  """
  for name, table in tables.items():
    for axis in axes_of(names, name):
      axes = [*map(names.index, outer_of[name]), axis]
      if is_matrix(table):
        product: Any = elements.multiply
        x = product(x, table.astype(x.dtype), axes, np)
      elif outer_of[name]:
        x = _gather_nested(x, axes, table)
      else:
        x = x.take(table, axis=axis)
  return x


def permute_in_place(x: np.ndarray, table: np.ndarray, axis: int) -> None:
  """Permutes one axis of a block by indices ``[n]``, with little memory."""
  if not x.flags.c_contiguous:
    x[...] = x.take(table, axis=axis)
    return
  y, n = around(x, axis), len(table)
  units = np.flatnonzero(table != np.arange(n))
  sources = table[units]
  # A gather of all columns is faster than to write to many of them.
  whole = y.shape[2] == 1 and len(units) > n // _WRITTEN

  def permute_rows(rows: slice) -> None:
    part = y[rows]
    # Valid indices do not wrap; this mode is the fastest.
    if whole:
      part[...] = part.take(table, axis=1, mode='wrap')
    else:
      part[:, units] = part.take(sources, axis=1, mode='wrap')

  def permute_columns(columns: slice) -> None:
    part = y[0, :, columns]
    part[units] = part[sources]

  if len(y) > 1:
    row_blocks.run(permute_rows, len(y), entries=y[0].size)
  else:
    row_blocks.run(permute_columns, y.shape[2], entries=n)


def around(x: np.ndarray, axis: int) -> np.ndarray:
  """Reshapes a block to ``[entries before, n, entries after]`` one axis."""
  return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], -1)


def is_matrix(table: np.ndarray) -> bool:
  """Returns True for matrices, False for indices."""
  return table.dtype.kind == 'f'


def axes_of(names: Names, group: str) -> list[int]:
  """Returns all axes of a block that belong to a group."""
  return [i for i, name in enumerate(names) if name == group]


def _read_finite(leaf: Any, model: str, name: str) -> np.ndarray:
  """Reads a leaf in float32 or wider; raises a ValueError if not finite."""
  x = np.asarray(tree.read(leaf))
  x = x.astype(tree.wide_dtype(x), copy=False)
  flat = x.reshape(-1)
  finite = row_blocks.run(
    lambda part: np.isfinite(flat[part]).all(), len(flat), entries=1
  )
  if not all(finite):
    raise ValueError(
      f"weight_matching: {model}: leaf '{name}' has NaN or inf: such a model "
      'cannot be matched'
    )
  return x


def _gather_nested(
  x: np.ndarray, axes: list[int], table: np.ndarray
) -> np.ndarray:
  """Permutes the last of ``axes`` by a table that the other axes index."""
  # With the axes flattened to one, the indices [*outer, n] become
  # outer_index * n + table, and a single ``take`` suffices. Outer axes next to
  # each other, the usual case, need no transpose.
  ndim, first, depth = x.ndim, axes[0], len(axes)
  adjacent = axes == list(range(first, first + depth))
  order = [*axes, *(i for i in range(ndim) if i not in axes)]
  y = x if adjacent else x.transpose(order)
  start = first if adjacent else 0
  shape = y.shape
  rows = np.arange(table.size // table.shape[-1], dtype=table.dtype)
  flat = (rows[:, None] * table.shape[-1]).repeat(table.shape[-1], 1)
  flat = (flat + table.reshape(flat.shape)).ravel()
  y = y.reshape(*shape[:start], -1, *shape[start + depth :])
  y = y.take(flat, axis=start).reshape(shape)
  return y if adjacent else y.transpose(np.argsort(order))
