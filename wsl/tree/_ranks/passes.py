"""One pass over leaves: sample magnitudes, count them, or collect a few.

A pass serves G searches of K ranks in each of T models at once. A leaf takes
part in one search, that of its group; all leaves are of one group in a search
over the whole model.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree._ranks import batches as batches_lib
from wsl.tree._ranks import brackets, reductions

Groups: TypeAlias = tuple[int, ...]


def sample(x: types.Array, *, stride: float) -> types.Array:
  """Takes about ``size / stride`` entries on a grid, ``[T, ...] -> [T, s]``."""
  rest = max(stride, 1.0)
  grid = []
  for axis in range(1, x.ndim):
    # The stride that the other axes leave to this one, at most its length.
    step = round(rest ** (1 / (x.ndim - axis)))
    step = min(max(step, 1), x.shape[axis])
    rest = max(rest / step, 1.0)
    grid.append(slice(step // 2, None, step))
  return x[:, *grid].reshape(len(x), -1)


def count(
  *leaves: types.Array,
  probes: types.Array,
  groups: Groups,
  batches: batches_lib.Batches | None = None,
  own: Sequence[types.Array] | None = None,
) -> types.Array:
  """Counts the entries whose bits are at least each probe.

  Args:
    *leaves: ``[T, ...]``.
    probes: bits, ``[G, K * T, PROBES]``.
    groups: the group of each leaf, 0 .. G - 1.
    batches: the leaves that one kernel reads on an accelerator, see
      ``batches_lib.of_leaves``; by default all leaves have one role.
    own: the limits of a batch of B leaves in an array of its own: ``[B, K * T,
      PROBES]``, or more columns.

  Returns:
    Counts, ``[G, K * T, PROBES]``, int32 (int64 under x64).
  """
  if batches is None or own is None:
    batches, own = _shared(leaves, probes, groups)
  limits = [y[..., : brackets.PROBES] for y in own]
  return _reduce(reductions.count, leaves, limits, groups, batches)


def collect(
  *leaves: types.Array,
  bracket: brackets.Bracket,
  k: types.Array,
  groups: Groups,
  batches: batches_lib.Batches,
  own: Sequence[types.Array],
  columns: int,
) -> brackets.Bracket:
  """Collects the entries inside the brackets, and settles these.

  Args:
    *leaves: ``[T, ...]``.
    bracket: brackets, every field ``[G, K * T]``.
    k: the ranks, ``[G, K * T]``.
    groups: the group of each leaf, 0 .. G - 1.
    batches: the leaves that one kernel reads on an accelerator.
    own: the probes, lo and hi - lo of a batch of B leaves in an array of its
      own, ``[B, K * T, PROBES + 2]``.
    columns: the most columns, see ``inside``.

  Returns:
    The brackets, see ``brackets.settle``.
  """
  flat = lambda x: x.reshape(-1)
  limits = [y[..., brackets.PROBES :] for y in own]
  reduction = functools.partial(reductions.inside, columns=columns)
  found = _reduce(reduction, leaves, limits, groups, batches)
  found = jnp.moveaxis(found, 1, 0).reshape(2, k.size, -1)
  settled = brackets.settle(jnp, jax.tree.map(flat, bracket), found, flat(k))
  return jax.tree.map(lambda x: x.reshape(k.shape), settled)


def inside(
  *leaves: types.Array,
  lo: types.Array,
  hi: types.Array,
  groups: Groups,
  columns: int,
) -> types.Array:
  """Finds the least and the greatest bits in ``[lo, hi)`` of each column.

  Args:
    *leaves: ``[T, ...]``, of one role.
    lo: ``[G, K * T]``.
    hi: ``[G, K * T]``.
    groups: the group of each leaf.
    columns: the number of columns.

  Returns:
    ``[G, 2, K * T, columns]``: ``hi - least`` and ``greatest - lo + 1``, both 0
    for a column without entries inside, so that the maximum combines leaves and
    shards. An entry's column is the run of entries that it belongs to.
  """
  batches, limits = _shared(leaves, jnp.stack([lo, hi - lo], axis=2), groups)
  reduction = functools.partial(reductions.inside, columns=columns, pad=True)
  return _reduce(reduction, leaves, limits, groups, batches)


def _shared(
  leaves: Sequence[types.Array], limits: types.Array, groups: Groups
) -> tuple[batches_lib.Batches, list[types.Array]]:
  """Returns batches of leaves of one role, and the limits of each batch."""
  batches = batches_lib.of_leaves(leaves, (None,) * len(leaves))
  return batches, [limits[np.asarray(groups)[list(b)]] for b in batches]


def _reduce(
  reduction: Callable[..., types.Array],
  leaves: Sequence[types.Array],
  limits: Sequence[types.Array],
  groups: Groups,
  batches: batches_lib.Batches,
) -> types.Array:
  """Reduces batches of leaves, or one leaf after another on a CPU."""

  def one_by_one(leaves: Any, limits: Any) -> types.Array:
    rows = [row[None] for batch in limits for row in batch]
    return reduction(leaves, rows, groups, [(i,) for b in batches for i in b])

  together = lambda xs, limits: reduction(xs, limits, groups, batches)
  return jax.lax.platform_dependent(
    leaves, limits, cpu=one_by_one, default=together
  )
