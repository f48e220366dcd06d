"""Batches of equal leaves, which one kernel reads on an accelerator."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from wsl import types
from wsl.tree import _separate
from wsl.tree._reads import together

Batches: TypeAlias = Sequence[tuple[int, ...]]
# Leaves that one kernel reads on an accelerator. On an H200 TIES of 60 leaves
# takes as long with kernels of one leaf as with those of eight, and 3 to 4 %
# longer with those of twelve, which are compiled in three quarters of the time.
_AT_ONCE = 12


def of_leaves(
  leaves: Sequence[Any], roles: Sequence[Any]
) -> tuple[tuple[int, ...], ...]:
  """Groups the indices of leaves that one kernel reads.

  Leaves of one role are sharded alike, so that their stack is sharded as they
  are. Batches of one kind have one size where possible, for one kernel.
  """
  alike: dict[Any, list[int]] = {}
  for i, (x, role) in enumerate(zip(leaves, roles, strict=True)):
    alike.setdefault((role, x.shape, x.dtype), []).append(i)
  found: list[tuple[int, ...]] = []
  for members in alike.values():
    found += map(tuple, together.split(members, _AT_ONCE))
  return tuple(found)


def own_limits(
  limits: types.Array, groups: Sequence[int], batches: Batches
) -> list[types.Array]:
  """Copies the limits ``[G, ...]`` of each batch of leaves, ``[B, ...]``."""
  longest = max(map(len, batches))
  # Shorter batches are filled up by their last leaf.
  filled = [[*b, *b[-1:] * (longest - len(b))] for b in batches]
  rows = limits[np.asarray(groups)[np.asarray(filled)]]
  copies = _separate.separate(rows, range(len(batches)))
  return [copy[: len(b)] for copy, b in zip(copies, batches)]
