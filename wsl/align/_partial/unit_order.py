"""The order of units in a partial merge, and the sizes of its axes."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.align import _permutation, _symmetry
from wsl.align._partial import entry_sources


def separate_last(
  symmetry: _symmetry.Symmetry,
  counts: entry_sources.UnitCounts,
  gains: Mapping[str, types.ArrayLike],
) -> _permutation.Permutation:
  """Returns the permutation that puts the units of least gain last."""
  order = _permutation.identity(symmetry)
  for name, k in counts.separate.items():
    shape = symmetry.table_shape(name)
    found = np.shape(gains[name]) if name in gains else 'none'
    if found != shape:
      raise ValueError(
        f"pleas: the gains of group '{name}' have shape {found}, expected "
        f'{shape}'
      )
    gain = np.asarray(gains[name], np.float64)
    if not np.isfinite(gain).all():
      raise ValueError(f"pleas: the gains of group '{name}' are not finite")
    # Both parts keep the order that the units have in the models.
    rank = np.argsort(np.argsort(gain, axis=-1, kind='stable'), axis=-1)
    last = np.argsort(rank < k, axis=-1, kind='stable')
    order[name] = jnp.asarray(last, np.int32)
  return order


def new_widths(
  symmetry: _symmetry.Symmetry, counts: entry_sources.UnitCounts
) -> dict[str, int]:
  """Returns the sizes of all groups and separate outputs after the merge."""
  sizes = {
    g.name: g.size + counts.separate.get(g.name, 0) for g in symmetry.groups
  }
  output_sizes = {
    name: symmetry.factor[name].size + size
    for name, size in counts.outputs.items()
  }
  return sizes | output_sizes
