"""Random subsets of a pool of experts."""

from collections.abc import Sequence
import itertools
import math

import jax
import numpy as np

from wsl import types


def draw_members(
  pool: int, *, sizes: Sequence[int], draws: int, key: types.PRNGKey
) -> np.ndarray:
  """Draws random subsets of a pool, without repetition.

  Args:
    pool: P, the number of experts.
    sizes: the sizes of the subsets, 1 .. P each.
    draws: subsets of each size; all of them where there are fewer.
    key: of the draws.

  Returns:
    ``members`` ``[D, P]``, booleans, in the order of the sizes.

  Raises:
    ValueError: if there are no sizes, one is out of range, or draws < 1.

  Example:
    >>> found = draw_members(4, sizes=(2, 4), draws=3, key=jax.random.key(0))
    >>> found.sum(1).tolist()
    [2, 2, 2, 4]
  """
  if not len(sizes) or not all(1 <= size <= pool for size in sizes):
    raise ValueError(f'sizes={tuple(sizes)}: expected sizes of 1 .. {pool}')
  if draws < 1:
    raise ValueError(f'draws={draws}: expected 1 or more')
  random = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
  rows = []
  for size in sizes:
    if math.comb(pool, size) <= draws:
      chosen = set(itertools.combinations(range(pool), size))
    else:
      chosen = set()
      while len(chosen) < draws:
        subset = random.choice(pool, size, replace=False)
        chosen.add(tuple(sorted(subset.tolist())))
    rows += [np.isin(np.arange(pool), subset) for subset in sorted(chosen)]
  return np.stack(rows)
