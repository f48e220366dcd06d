r"""The k-th largest magnitude of a model, found by counting.

The k-th largest magnitude is the largest integer b for which at least k entries
have bits >= b. A sorted sample brackets it; every pass then counts how many
entries reach each of four probes, placed where the counts so far say that the
k-th must lie, and narrows the bracket. When few entries are left inside, one
pass collects them. Nothing is concatenated or sorted but the sample and those
few, and counts combine over leaves, shards and streams.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _on_demand, _passes, _sums

_SAMPLE = (1 << 12, 1 << 16)  # at least, at most
# So few entries seldom meet three to a column, which ``inside`` cannot hold.
_FEW = 400
# Where probes go: near the expected place, in standard deviations, or evenly
# over the bracket, after a pass that hardly narrowed it.
_NEAR = np.asarray([-2.5, -0.6, 0.6, 2.5])
# The outer ones allow for a density that changes by this much over an octave.
_BEND = np.asarray([-0.2, 0.0, 0.0, 0.2])
_EVEN = np.asarray([0.2, 0.4, 0.6, 0.8])


class _Bracket(NamedTuple):
  """Where each of T thresholds lies: ``lo <= bits < hi``, all ``[T]``."""

  lo: Any  # count(>= lo) >= k
  hi: Any  # count(>= hi) < k
  n_lo: Any
  n_hi: Any
  slow: Any  # the last count hardly narrowed it
  even: Any  # the next count spreads its probes


def kth_magnitude(tree: types.Deltas, k: Any) -> Any:
  r"""Returns the k-th largest magnitude of each of T stacked models.

  .. math:: \max \{ m : |\{p : |\tau_{t,p}| \ge m\}| \ge k \}

  Exact, ties included; about three passes over the leaves, each of which may be
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
  _check_k(k, size, models)
  stride = _on_demand.Static(size / np.clip(size / 64, *_SAMPLE))
  samples = [_draw(leaf, stride) for leaf in leaves]
  sample = _passes.sorted_bits([jnp.asarray(s, dtype) for s in samples])
  traced = any(isinstance(x, jax.core.Tracer) for x in [k, *samples])
  xp: Any = jnp if traced else np
  wide = _counter(traced, size)
  k = xp.broadcast_to(xp.asarray(k).astype(wide), (models,))
  integer = _passes.integer(dtype)
  one = np.ones((), integer)
  bracket = _Bracket(
    lo=xp.zeros(models, integer),
    hi=xp.full(models, np.asarray(np.inf, dtype).view(integer) + 1, integer),
    n_lo=xp.full(models, size, wide),
    n_hi=xp.zeros(models, wide),
    slow=xp.zeros(models, bool),
    even=xp.zeros(models, bool),
  )

  def count(b: _Bracket, probes: Any) -> _Bracket:
    counts = _sums.total(_passes.count, leaves, probes=probes)
    return _narrow(xp, b, probes, counts.astype(wide), k)

  def collect(b: _Bracket) -> _Bracket:
    found = _sums.greatest(_passes.inside, leaves, lo=b.lo, hi=b.hi)
    return _settle(xp, b, found.astype(integer), k)

  def step(b: _Bracket) -> _Bracket:
    again = lambda b: count(b, _next_probes(xp, b, k, dtype))
    few = (b.n_lo - b.n_hi <= _FEW) | (b.n_lo == k) | ~is_open(b)
    stuck = xp.any(is_open(b) & b.slow)
    # Entries that could not be collected must be parted by a count first.
    which = (xp.all(few) | stuck) & ~xp.any(is_open(b) & b.even)
    if traced:
      return jax.lax.cond(which, collect, again, b)
    return collect(b) if which else again(b)

  is_open = lambda b: b.hi - b.lo > one
  bracket = count(bracket, _first_probes(xp, xp.asarray(sample), k, size))
  bracket = _while(traced, lambda b: xp.any(is_open(b)), step, bracket)
  return bracket.lo.view(dtype)


def reaches(x: types.Array, threshold: types.Array) -> types.Array:
  """Says which entries have at least the magnitude of a threshold.

  It compares bits, as ``kth_magnitude`` counts them: a comparison of floats
  takes denormal numbers for zeros.

  Args:
    x: one leaf of one model, ``[...]``.
    threshold: ``[]``, in the dtype of ``x`` or a wider one.

  Returns:
    Bools, ``[...]``.

  Example:
    >>> import jax.numpy as jnp
    >>> reaches(jnp.asarray([1.0, -4.0]), jnp.asarray(3.0)).tolist()
    [False, True]
  """
  dtype = _passes.integer(threshold.dtype)
  threshold = _passes.bits(threshold, dtype)
  return _passes.bits(x, dtype) >= threshold


def _check_k(k: Any, size: int, models: int) -> None:
  if np.shape(k) not in ((), (models,)):
    raise ValueError(
      f'kth_magnitude: k has shape {np.shape(k)}, expected () or ({models},), '
      'one for each model'
    )
  if isinstance(k, jax.core.Tracer):
    return
  if not np.all((np.asarray(k) >= 1) & (np.asarray(k) <= size)):
    raise ValueError(f'kth_magnitude(k={k}): k must lie in 1 .. {size}')


def _counter(traced: bool, size: int) -> Any:
  """Returns the integer that counts entries, on the host or in a trace."""
  if not traced or jax.config.read('jax_enable_x64'):
    return np.int64
  if size >= 2**31:
    raise ValueError(
      f'kth_magnitude: {size} entries do not fit an int32 count in a trace; '
      'call it outside jit, or enable x64'
    )
  return np.int32


def _draw(leaf: Any, stride: Any) -> Any:
  """Reads a sample, and waits for it: one leaf at a time is in memory."""
  part = _on_demand.apply_kernel(_passes.sample, leaf, stride=stride)
  part = _on_demand.read(part)
  return part if isinstance(part, jax.core.Tracer) else np.asarray(part)


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
  """Takes the closest probes on both sides."""
  enough = counts >= k[:, None]
  column = lambda x: x[:, None]
  lo = xp.where(enough, probes, column(b.lo)).max(1)
  hi = xp.where(enough, column(b.hi), probes).min(1)
  return _Bracket(
    lo=lo,
    hi=hi,
    n_lo=xp.where(enough, counts, column(b.n_lo)).min(1),
    n_hi=xp.where(enough, column(b.n_hi), counts).max(1),
    slow=hi - lo > (b.hi - b.lo) // 4,
    even=xp.zeros_like(b.even),
  )


def _settle(xp: Any, b: _Bracket, found: Any, k: Any) -> _Bracket:
  """Reads the k-th off the entries found, or snaps the bracket to them."""
  below, above = found  # hi - least, greatest - lo + 1 of each column
  width = (b.hi - b.lo)[:, None] + np.ones((), b.lo.dtype)
  least = xp.where(below > 0, width - below, 0)
  twice = least == above
  entries = xp.concatenate([xp.where(twice, 0, least), above], axis=1)
  entries = xp.sort(entries.astype(b.lo.dtype), axis=1)  # 0 where there is none
  rank = xp.clip(entries.shape[1] - (k - b.n_hi), 0, entries.shape[1] - 1)
  kth = xp.take_along_axis(entries, rank[:, None], axis=1)[:, 0]
  all_found = (entries > 0).sum(1) == b.n_lo - b.n_hi
  one = np.ones((), b.lo.dtype)
  snapped = b.hi - below.max(1)
  # If exactly k entries reach lo, the least of them is the k-th.
  known = all_found | (b.n_lo == k)
  lo = xp.where(all_found, b.lo + kth - one, snapped)
  return b._replace(
    lo=lo,
    hi=xp.where(known, lo + one, b.lo + above.max(1)),
    slow=xp.zeros_like(b.slow),
    even=xp.ones_like(b.even),
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
  ranks = xp.stack([rank(-3.5), rank(0), rank(3.5)], axis=1)
  ranks = xp.clip(ranks, 0, drawn - 1).astype(np.int32)
  probes = xp.take_along_axis(sample, ranks, axis=1)
  successor = probes[:, 1:2] + np.ones((), probes.dtype)
  # The probe 0 would say nothing: every entry reaches it.
  return xp.maximum(xp.concatenate([probes, successor], axis=1), 1)


def _next_probes(xp: Any, b: _Bracket, k: Any, dtype: np.dtype) -> Any:
  """Interpolates between the bracket's counts, or splits it evenly.

  A density bends at powers of two if it is one over bits: where the bracket is
  narrow, interpolation is between magnitudes.
  """
  real = np.float64 if b.lo.dtype == np.int64 or xp is np else np.float32
  entries = (b.n_lo - b.n_hi).astype(real)
  share = ((b.n_lo - k).astype(real) + real(0.5)) / entries
  deviation = xp.sqrt(share * (1 - share) * entries + 1) / entries
  width = (b.hi - b.lo).astype(real)
  octaves = width / real(2 ** jnp.finfo(dtype).nmant)
  near = share[:, None] + deviation[:, None] * _NEAR.astype(real)[None]
  near = near + octaves[:, None] * _BEND.astype(real)[None]
  fraction = xp.where(b.even[:, None], _EVEN.astype(real)[None], near)
  fraction = xp.clip(fraction, 0, 1)
  first, last = b.lo[:, None], b.hi[:, None] - 1
  places = first + (fraction * width[:, None]).astype(first.dtype)
  least, greatest = (v.view(dtype).astype(real) for v in (first, last))
  values = least + fraction * (greatest - least)
  values = values.astype(dtype).view(first.dtype)
  probes = xp.where((octaves < 1)[:, None], values, places)
  return xp.clip(probes, first + 1, xp.maximum(last, first + 1))
