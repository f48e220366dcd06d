r"""The k-th largest magnitude of a model, found by counting.

The bits of a non-negative float, read as an unsigned integer, keep its order:
the k-th largest magnitude is the largest integer b for which at least k entries
have bits >= b. A sorted sample brackets it; every pass then counts how many
entries reach each of four probes, placed where the counts so far say that the
k-th must lie, and narrows the bracket. Where entries are sparse or tied, a pass
that finds the least and the greatest entry inside snaps the bracket to them.
Nothing is concatenated or sorted but the sample, and counts and extremes
combine over leaves, shards and streams.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _map, _on_demand, _total

_PROBES = 4
_SAMPLE = (1 << 12, 1 << 16)  # at least, at most
# How a bracket is treated next: probes near the expected place (in standard
# deviations), or spread evenly over it, or snapped to the entries inside.
_NEAR, _EVEN, _SNAP = 0, 1, 2
_PLACES = np.asarray([[-2.5, -0.6, 0.6, 2.5], [0.2, 0.4, 0.6, 0.8]])


class _Bracket(NamedTuple):
  """Where each of T thresholds lies: ``lo <= bits < hi``, all ``[T]``."""

  lo: Any  # count(>= lo) >= k
  hi: Any  # count(>= hi) < k
  n_lo: Any
  n_hi: Any
  mode: Any  # _NEAR, _EVEN or _SNAP


def kth_magnitude(tree: types.Deltas, k: Any) -> Any:
  r"""Returns the k-th largest magnitude of each of T stacked models.

  .. math:: \max \{ m : |\{p : |\tau_{t,p}| \ge m\}| \ge k \}

  Exact, ties included; about four passes over the leaves, each of which may be
  on demand. In a trace the counts are int32 (int64 under x64).

  Args:
    tree: stacked models, every leaf ``[T, ...]``, of float dtype.
    k: a count between 1 and the entries of one model, or one for each model,
      ``[T]``; may be traced.

  Returns:
    ``[T]`` magnitudes, in the widest dtype of the leaves.

  Raises:
    ValueError: if k is out of range, there are no entries, or counts do not fit
      in a trace.

  Example:
    >>> import jax.numpy as jnp
    >>> tree = {'a': jnp.asarray([[1.0, -4.0]]), 'b': jnp.asarray([[3.0]])}
    >>> kth_magnitude(tree, 2).tolist()
    [3.0]
  """
  # A leaf without entries has no order statistics, and no say in them.
  tree = leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.size]
  if not leaves:
    raise ValueError('kth_magnitude: the tree holds no entries')
  dtype = _widest([leaf.dtype for leaf in leaves])
  size = sum(leaf.size // leaf.shape[0] for leaf in leaves)
  models = leaves[0].shape[0]
  traced = any(isinstance(x, jax.core.Tracer) for x in [k, *leaves])
  if not isinstance(k, jax.core.Tracer) and not np.all(
    (np.asarray(k) >= 1) & (np.asarray(k) <= size)
  ):
    raise ValueError(f'kth_magnitude(k={k}): k must lie in 1 .. {size}')
  if np.shape(k) not in ((), (models,)):
    raise ValueError(
      f'kth_magnitude: k has shape {np.shape(k)}, expected () or ({models},), '
      'one for each model'
    )
  if traced and size >= 2**31 and not jax.config.read('jax_enable_x64'):
    raise ValueError(
      f'kth_magnitude: {size} entries do not fit an int32 count in a trace; '
      'call it outside jit, or enable x64'
    )
  xp: Any = jnp if traced else np
  wide = np.int64 if not traced or jax.config.read('jax_enable_x64') else np.int32
  k = xp.broadcast_to(xp.asarray(k).astype(wide), (models,))
  unsigned = _unsigned(dtype)
  stride = size / np.clip(size / 64, *_SAMPLE)

  samples = jax.tree.leaves(
    _map.read(_map.map(_sample, tree, stride=_on_demand.Static(stride)))
  )
  sample = _sorted_bits([jnp.asarray(s, dtype) for s in samples])
  bracket = _Bracket(
    lo=xp.zeros(models, unsigned),
    hi=xp.full(models, np.asarray(np.inf, dtype).view(unsigned) + 1, unsigned),
    n_lo=xp.full(models, size, wide),
    n_hi=xp.zeros(models, wide),
    mode=xp.zeros(models, np.int32),
  )

  def count(b: _Bracket, probes: Any) -> _Bracket:
    counts = _total.total(_count, tree, probes=probes)
    return _narrow(xp, b, probes, counts.astype(wide), k)

  def snap(b: _Bracket) -> _Bracket:
    inside = _map.map(_extremes, tree, lo=b.lo, hi=b.hi)
    least, most = zip(
      *jax.tree.leaves(
        _map.read(inside), is_leaf=lambda x: isinstance(x, tuple)
      )
    )
    lo = functools.reduce(xp.minimum, least)
    hi = functools.reduce(xp.maximum, most) + np.ones((), unsigned)
    # If exactly k entries reach lo, the least of them is the k-th.
    exact = b.n_lo == k
    return b._replace(
      lo=lo,
      hi=xp.where(exact, lo + np.ones((), unsigned), hi),
      mode=xp.full_like(b.mode, _EVEN),
    )

  def step(b: _Bracket) -> _Bracket:
    again = lambda b: count(b, _next_probes(xp, b, k))
    return _either(traced, xp.any(open_(b) & (b.mode == _SNAP)), snap, again, b)

  open_ = lambda b: b.hi - b.lo > 1
  bracket = count(bracket, _first_probes(xp, xp.asarray(sample), k, size))
  bracket = _while(traced, lambda b: xp.any(open_(b)), step, bracket)
  return bracket.lo.view(dtype)


def _either(traced: bool, which: Any, yes: Any, no: Any, state: Any) -> Any:
  if traced:
    return jax.lax.cond(which, yes, no, state)
  return yes(state) if which else no(state)


def reaches(x: types.Array, threshold: types.Array) -> types.Array:
  """Says which entries have at least the magnitude of a threshold.

  It compares bits, as ``kth_magnitude`` counts them: a comparison of floats
  takes denormal numbers for zeros.

  Args:
    x: one leaf, ``[T, ...]``.
    threshold: ``[T]``, in the dtype of ``x`` or a wider one.

  Returns:
    Bools, ``[T, ...]``.

  Example:
    >>> import jax.numpy as jnp
    >>> reaches(jnp.asarray([[1.0, -4.0]]), jnp.asarray([3.0])).tolist()
    [[False, True]]
  """
  dtype = _unsigned(threshold.dtype)
  threshold = _bits(threshold, dtype)
  return _bits(x, dtype) >= threshold.reshape(-1, *(1,) * (x.ndim - 1))


def _unsigned(dtype: np.dtype) -> np.dtype:
  return np.dtype(f'uint{8 * dtype.itemsize}')


def _widest(dtypes: list[np.dtype]) -> np.dtype:
  """Returns a dtype that holds them all: the two 16-bit ones need 32 bits."""
  widest = max(dtypes, key=lambda dtype: dtype.itemsize)
  mixed = widest.itemsize == 2 and len(set(dtypes)) > 1
  return np.dtype(np.float32) if mixed else np.dtype(widest)


def _while(
  traced: bool,
  condition: Callable[[Any], Any],
  step: Callable[[Any], Any],
  state: Any,
) -> Any:
  if traced:
    return jax.lax.while_loop(condition, step, state)
  while condition(state):
    state = step(state)
  return state


def _narrow(xp: Any, b: _Bracket, probes: Any, counts: Any, k: Any) -> _Bracket:
  enough = counts >= k[:, None]
  column = lambda x: x[:, None]
  lo = xp.where(enough, probes, column(b.lo)).max(1)
  hi = xp.where(enough, column(b.hi), probes).min(1)
  n_lo = xp.where(enough, counts, column(b.n_lo)).min(1)
  slow = (hi - lo > (b.hi - b.lo) // 4) | (n_lo == k)
  return _Bracket(
    lo=lo,
    hi=hi,
    n_lo=n_lo,
    n_hi=xp.where(enough, column(b.n_hi), counts).max(1),
    mode=xp.where(slow, _SNAP, _NEAR).astype(np.int32),
  )


def _first_probes(xp: Any, sample: Any, k: Any, size: int) -> Any:
  """Takes the sample's order statistics around the rank of k.

  The expected one is probed with its successor: a value that many entries share
  is settled by the pair at once.
  """
  drawn = sample.shape[1]
  share = 1 - k.astype(np.float32) / np.float32(size)
  deviation = xp.sqrt(share * (1 - share) / np.float32(drawn))
  rank = lambda z: (share + np.float32(z) * deviation) * np.float32(drawn)
  ranks = xp.stack([rank(-4), rank(0), rank(4)], axis=1)
  ranks = xp.clip(ranks, 0, drawn - 1).astype(np.int32)
  probes = xp.take_along_axis(sample, ranks, axis=1)
  successor = probes[:, 1:2] + np.ones((), probes.dtype)
  # The probe 0 would say nothing: every entry reaches it.
  return xp.maximum(xp.concatenate([probes, successor], axis=1), 1)


def _next_probes(xp: Any, b: _Bracket, k: Any) -> Any:
  """Interpolates between the bracket's counts, or splits it evenly."""
  real = np.float64 if b.lo.dtype == np.uint64 or xp is np else np.float32
  width = b.hi - b.lo
  entries = (b.n_lo - b.n_hi).astype(real)
  share = ((b.n_lo - k).astype(real) + real(0.5)) / entries
  deviation = xp.sqrt(share * (1 - share) * entries + 1) / entries
  near, even = xp.asarray(_PLACES.astype(real))[:, None]
  near = share[:, None] + deviation[:, None] * near
  fraction = xp.where(b.mode[:, None] == _EVEN, even, near)
  offset = xp.clip(fraction, 0, 1) * width.astype(real)[:, None]
  last = xp.maximum(width - 1, 1)[:, None]
  offset = xp.clip(offset.astype(width.dtype), 1, last)
  return (b.lo[:, None] + offset).astype(b.lo.dtype)


def _bits(x: types.Array, dtype: np.dtype) -> types.Array:
  """Reads magnitudes as unsigned integers of the same order."""
  floats = np.dtype(f'float{8 * dtype.itemsize}')
  wide = floats if dtype.itemsize > x.dtype.itemsize else x.dtype
  return jax.lax.bitcast_convert_type(jnp.abs(x.astype(wide)), dtype)


@jax.jit
def _sorted_bits(samples: list[types.Array]) -> types.Array:
  joined = jnp.concatenate(samples, axis=1)
  return jnp.sort(_bits(joined, _unsigned(joined.dtype)), axis=1)


def _sample(x: types.Array, *, stride: float) -> types.Array:
  """Takes about ``size / stride`` entries on a grid, ``[T, ...] -> [T, s]``."""
  step = max(stride, 1.0) ** (1 / max(x.ndim - 1, 1))
  for axis in range(1, x.ndim):
    rows = max(round(x.shape[axis] / step), 1)
    at = (np.arange(rows) + 0.5) * (x.shape[axis] / rows)
    x = jnp.take(x, at.astype(np.int32), axis=axis)
  return x.reshape(len(x), -1)


def _extremes(
  x: types.Array, *, lo: types.Array, hi: types.Array
) -> tuple[types.Array, types.Array]:
  """Returns the least and the greatest bits in ``[lo, hi)``, each ``[T]``."""
  x = x.reshape(len(x), -1)
  return jax.lax.platform_dependent(
    x, lo, hi, cpu=_extremes_by_blocks, default=_extremes_plainly
  )


def _extremes_plainly(
  x: types.Array, lo: types.Array, hi: types.Array
) -> tuple[types.Array, types.Array]:
  least, most = _inside(x, lo, hi)
  return least.min(1), most.max(1)


def _extremes_by_blocks(
  x: types.Array, lo: types.Array, hi: types.Array
) -> tuple[types.Array, types.Array]:
  head, tail = _total.split_blocks(x)
  if not head.size:
    return _extremes_plainly(tail, lo, hi)

  def add(i: Any, state: tuple[Any, Any]) -> tuple[types.Array, types.Array]:
    block = jax.lax.dynamic_index_in_dim(head, i, 1, False)
    least, most = _inside(block, lo, hi)
    return jnp.minimum(state[0], least), jnp.maximum(state[1], most)

  state = _inside(head[:, 0], lo, hi)
  least, most = jax.lax.fori_loop(1, head.shape[1], add, state)
  rest = _inside(tail, lo, hi)
  least = jnp.concatenate([least, rest[0]], axis=1)
  return least.min(1), jnp.concatenate([most, rest[1]], axis=1).max(1)


def _inside(
  x: types.Array, lo: types.Array, hi: types.Array
) -> tuple[types.Array, types.Array]:
  bits = _bits(x, lo.dtype)
  inside = (bits >= lo[:, None]) & (bits < hi[:, None])
  return jnp.where(inside, bits, hi[:, None] - 1), jnp.where(
    inside, bits, lo[:, None]
  )


def _count(x: types.Array, *, probes: types.Array) -> types.Array:
  """Counts the entries that reach each probe: ``[T, m]``."""
  x = x.reshape(len(x), -1)
  return jax.lax.platform_dependent(
    x, probes, cpu=_count_by_blocks, default=_count_plainly
  )


def _count_plainly(x: types.Array, probes: types.Array) -> types.Array:
  reached = _bits(x, probes.dtype)[:, None, :] >= probes[:, :, None]
  return jnp.sum(reached, axis=2, dtype=np.int32)


def _count_by_blocks(x: types.Array, probes: types.Array) -> types.Array:
  """Counts with one word of four 8-bit counters for each column of a block."""
  head, tail = _total.split_blocks(x)
  blocks, full = head.shape[1], 255
  counts = _count_plainly(tail, probes)
  if not blocks:
    return counts

  def add(i: Any, word: types.Array) -> types.Array:
    block = jax.lax.dynamic_index_in_dim(head, i, 1, False)
    bits = _bits(block, probes.dtype)
    for j in range(_PROBES):
      reached = (bits >= probes[:, j, None]).astype(np.uint32)
      word += reached << np.uint32(8 * j)
    return word

  def unpack(word: types.Array, j: int) -> types.Array:
    return ((word >> np.uint32(8 * j)) & np.uint32(255)).astype(np.int32)

  def group(g: Any, counts: types.Array) -> types.Array:
    empty = jnp.zeros((len(x), _total.BLOCK), np.uint32)
    stop = jnp.minimum((g + 1) * full, blocks)
    word = jax.lax.fori_loop(g * full, stop, add, empty)
    parts = [unpack(word, j).sum(1, dtype=np.int32) for j in range(_PROBES)]
    return counts + jnp.stack(parts, axis=1)

  return jax.lax.fori_loop(0, -(-blocks // full), group, counts)
