"""Searches by one compiled program, where accelerators hold all leaves.

Outside a trace a search on the host starts some programs for each pass, and
waits for their counts. Here the traced search runs as one program: the sample,
the passes and the brackets stay on the device.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from wsl import types
from wsl.tree import _nodes, _on_demand, _separate
from wsl.tree._ranks import passes, search
from wsl.tree._reads import devices


def find(
  leaves: Sequence[Any],
  groups: passes.Groups,
  ks: Sequence[Any],
  sizes: Sequence[int],
  roles: Sequence[Any],
  dtypes: Sequence[np.dtype],
) -> list[Any]:
  """Finds magnitudes of ranks as ``search.find``, ``[K, T]`` of each group.

  A result has the dtype of its group, of ``dtypes``. It is on the device if the
  memory of accelerators holds all leaves.
  """
  arrays = [devices.on_accelerator(leaf) for leaf in leaves]
  place = devices.common(arrays)
  traced = _on_demand.is_traced([leaves, ks])
  if place is None and len(sizes) > 1 and not traced:
    # On the host a search has one group.
    each = zip(leaves, ks, sizes, roles, dtypes, strict=True)
    return [find([x], (0,), [k], [n], [r], [d])[0] for x, k, n, r, d in each]
  if place is None or traced:
    rows = search.find(leaves, groups, ks, sizes, roles)
    rows = _separate.separate(rows, range(len(sizes)))
    return [row.astype(dtype) for row, dtype in zip(rows, dtypes)]
  # Ranks of 64 bits are leaves of the program, which enable x64 for it.
  counter = np.int64 if max(sizes) >= 2**31 else np.int32
  ranks = max([len(k) for k in ks if np.ndim(k) == 2], default=1)
  table = np.empty((len(ks), ranks, leaves[0].shape[0]), counter)
  for row, k in zip(table, ks):
    row[...] = k
  static = {
    'groups': tuple(groups),
    'sizes': tuple(sizes),
    'roles': tuple(roles),
    'dtypes': tuple(dtypes),
    'mesh': place if isinstance(place, jax.sharding.Mesh) else None,
  }
  static = {name: _nodes.Static(value) for name, value in static.items()}
  return list(_on_demand.apply_kernel(_search, table, *arrays, **static))


def _search(
  ks: types.Array,
  *leaves: types.Array,
  groups: passes.Groups,
  sizes: tuple[int, ...],
  roles: tuple[Any, ...],
  dtypes: tuple[np.dtype, ...],
  mesh: jax.sharding.Mesh | None,
) -> list[types.Array]:
  """Searches leaves in a trace; returns the result of each group."""
  found = search.find(leaves, groups, list(ks), sizes, roles)
  if mesh is not None:
    # Each process of a run reads the result.
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    found = jax.lax.with_sharding_constraint(found, whole)
  return [row.astype(dtype) for row, dtype in zip(found, dtypes)]
