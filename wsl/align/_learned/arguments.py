"""Arguments of learned matching: checks and defaults."""

from collections.abc import Sequence
import functools
from typing import Any

import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _symmetry
from wsl.align._learned import steps


def check(
  symmetry: _symmetry.Symmetry,
  gauges: Sequence[str],
  path: tuple[float, float],
  points: int,
  every: int,
) -> None:
  """Raises a ValueError that names the first argument that does not fit."""
  if np.shape(path) != (2,):
    raise ValueError(
      f'learned_matching: path is {path!r}, expected two weights'
    )
  low, high = path
  if not 0 <= low <= high <= 1:
    raise ValueError(
      f'learned_matching: path is {path}, expected weights 0 <= a <= b <= 1'
    )
  _arguments.check_counts('learned_matching', points=points, every=every)
  _arguments.check_kinds(gauges, steps.CALLER)
  groups = symmetry.groups if 'permutation' in gauges else ()
  if not groups and not any(a.kind in gauges for a in symmetry.actions):
    raise ValueError(
      f'learned_matching: the symmetry has nothing to learn of {list(gauges)}: '
      'find it with find_symmetry(gauges=...)'
    )


@functools.cache
def adam() -> Any:
  """Returns the default optimizer: one object, so that it compiles once."""
  import optax

  return optax.adam(0.003)


def float_leaves(params: types.Params, leaves: types.Leaves) -> tuple[str, ...]:
  """Returns the names of the chosen leaves of floats."""
  chosen = tree.named(tree.select(params, leaves))
  named = tree.named(params)
  return tuple(n for n, x in named.items() if chosen[n] and tree.is_float(x))
