"""Blocks of a leaf: one segment of each axis, one dimension for each factor."""

import itertools
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.align import _symmetry

Factors: TypeAlias = tuple[_symmetry.Factor, ...]


def to_blocks(x: Any, plan: _symmetry.Plan) -> list[tuple[Any, Factors]]:
  """Cuts a leaf into blocks ``[*sizes of factors]``.

  Args:
    x: the leaf. Blocks of a NumPy array are views of it, if possible.
    plan: its axes.

  Returns:
    Each block with its factors; the last axis varies fastest.
  """
  parts: list[tuple[Any, Factors]] = [(x, ())]
  for axis, segments in enumerate(plan):
    ends = itertools.accumulate(map(_symmetry.width, segments), initial=0)
    cuts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    parts = [
      (y[(slice(None),) * axis + (cut,)], factors + segment)
      for y, factors in parts
      for cut, segment in zip(cuts, segments)
    ]
  return [
    (y.reshape([f.size for f in factors]), factors) for y, factors in parts
  ]


def from_blocks(blocks: list[types.Array], plan: _symmetry.Plan) -> types.Array:
  """Concatenates the blocks of a leaf; the inverse of ``to_blocks``."""
  parts = [
    block.reshape([_symmetry.width(segment) for segment in segments])
    for block, segments in zip(blocks, itertools.product(*plan))
  ]
  for axis in reversed(range(len(plan))):
    step = len(plan[axis])
    parts = [
      jnp.concatenate(parts[i : i + step], axis) if step > 1 else parts[i]
      for i in range(0, len(parts), step)
    ]
  return parts[0]


def spread(
  table: types.Array, places: list[int], ndim: int, xp: Any = jnp
) -> types.Array:
  """Moves the axes of a table to ``places`` among ``ndim`` axes."""
  table = xp.transpose(table, np.argsort(places).tolist())
  return xp.expand_dims(table, [i for i in range(ndim) if i not in places])
