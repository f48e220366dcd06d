"""Moves in slices of the first outer factor, to bound the memory for gains."""

import numpy as np

from wsl.align._match import block_pairs, nested_heads

_MAX_ENTRIES = 2**27  # of a group's gains; more are computed in slices


def of(
  blocks: list[block_pairs.BlockPair],
  group: str,
  outer: block_pairs.Names,
  outer_of: dict[str, block_pairs.Names],
) -> list[list[block_pairs.BlockPair]]:
  """Slices blocks along the first outer factor, to bound memory for gains."""
  if not outer:
    return [blocks]
  axes = [block.names.index(outer[0]) for block in blocks]
  size = blocks[0].fixed.shape[axes[0]]
  entries = max(nested_heads.gram_size(b, group, outer_of) for b in blocks)
  length = max(1, _MAX_ENTRIES * size // entries)
  take = lambda x, axis, rows: x[(slice(None),) * axis + (rows,)]
  return [
    [
      b._replace(
        fixed=take(b.fixed, axis, rows), moving=take(b.moving, axis, rows)
      )
      for b, axis in zip(blocks, axes)
    ]
    for rows in (slice(i, i + length) for i in range(0, size, length))
  ]


def join(
  parts: list[tuple[block_pairs.Tables, np.ndarray, np.ndarray]],
  outer: block_pairs.Names,
  outer_of: dict[str, block_pairs.Names],
) -> tuple[block_pairs.Tables, np.ndarray, np.ndarray]:
  """Joins the tables, agreements and increases of slices."""
  tables, *sums = zip(*parts)
  before, gained = (concatenate([*x], outer, outer) for x in sums)
  return join_tables(list(tables), outer, outer_of), before, gained


def join_tables(
  parts: list[block_pairs.Tables],
  outer: block_pairs.Names,
  outer_of: dict[str, block_pairs.Names],
) -> block_pairs.Tables:
  """Joins the tables of slices."""
  return {
    name: concatenate([part[name] for part in parts], outer, outer_of[name])
    for name in parts[0]
  }


def concatenate(
  parts: list[np.ndarray],
  outer: block_pairs.Names,
  names: block_pairs.Names,
) -> np.ndarray:
  """Joins the results of slices along the axis of the first outer factor."""
  if len(parts) == 1:
    return parts[0]
  return np.concatenate(parts, names.index(outer[0]))
