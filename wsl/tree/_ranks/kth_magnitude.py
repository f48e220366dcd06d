r"""The k-th largest magnitude of a model, found by counting.

The bits of a non-negative float, read as an integer, are monotone in its value
(see ``passes``). Write n(b) for the number of entries whose bits are at least
b: a decreasing step function of integers. The bits of the k-th largest
magnitude are the largest b with n(b) >= k.

A bracket lo < hi with n(lo) >= k > n(hi) contains that b. Each pass counts n at
four probes inside the bracket and keeps the closest probes on both sides, so
the bracket shrinks until hi = lo + 1, and lo is the answer. The counts are
exact integers: the sample and the interpolation that place the probes affect
the number of passes, never the result.

A sorted sample places the first probes. When few entries are left inside the
bracket, one pass collects them instead. Only the sample and those few entries
are sorted, nothing is concatenated, and counts add over leaves, shards and
streams.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _nodes, _on_demand, _sums
from wsl.tree._chunks import programs, reduce
from wsl.tree._ranks import brackets, passes

_SAMPLE = (1 << 12, 1 << 16)  # least and greatest size of the sample
# A column of ``inside`` holds two entries. Of m entries in B = 8192 columns,
# about m^3 / (6 B^2) columns receive three: 0.16 for m = 400.
_FEW = 400
# A probe is at least 1, the bits of the smallest number: zeros are not counted.
_COUNT = programs.Entries(lead=1, neutral=0.0)
# The bits of NaN are above infinity, where each bracket ends.
_INSIDE = programs.Entries(lead=1, neutral=math.nan)
# A sample of a leaf in a file is read in runs of so many entries at least, and
# in so many runs at most: each is a call of the operating system.
_RUN = 32
_RUNS = 64


def kth_magnitude(tree: types.Tree, k: Any) -> Any:
  r"""Returns the k-th largest magnitude of each of T stacked models.

  .. math:: \max \{ m : |\{p : |\tau_{t,p}| \ge m\}| \ge k \}

  Exact, ties included. It takes about three passes over the leaves, which may
  be on demand. In a trace the counts are int32 (int64 under x64).

  Args:
    tree: stacked models, every leaf ``[T, ...]``, of float or complex dtype.
    k: a count from 1 to the number of entries of one model; one number, or one
      for each model, ``[T]``; may be traced.

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
  # Skip empty leaves.
  tree = leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.size]
  if not leaves:
    raise ValueError('kth_magnitude: the tree holds no entries')
  dtype = _widest([leaf.dtype for leaf in leaves])
  size = sum(leaf.size // leaf.shape[0] for leaf in leaves)
  models = leaves[0].shape[0]
  _check_k(k, size, models)
  stride = _nodes.Static(size / np.clip(size / 64, *_SAMPLE))
  samples = [_draw(leaf, stride) for leaf in leaves]
  sample = _on_demand.apply_kernel(
    _sorted, *samples, dtype=_nodes.Static(dtype)
  )
  traced = any(isinstance(x, jax.core.Tracer) for x in [k, *samples])
  xp: Any = jnp if traced else np
  wide = _counter(traced, size)
  k = xp.broadcast_to(xp.asarray(k).astype(wide), (models,))
  integer = passes.integer(dtype)
  one = np.ones((), integer)
  bracket = brackets.Bracket(
    lo=xp.zeros(models, integer),
    hi=xp.full(models, np.asarray(np.inf, dtype).view(integer) + 1, integer),
    n_lo=xp.full(models, size, wide),
    n_hi=xp.zeros(models, wide),
    slow=xp.zeros(models, bool),
    even=xp.zeros(models, bool),
  )

  def count(b: brackets.Bracket, probes: Any) -> brackets.Bracket:
    counts = _sums.total(passes.count, leaves, entries=_COUNT, probes=probes)
    return brackets.narrow(xp, b, probes, counts.astype(wide), k)

  def collect(b: brackets.Bracket) -> brackets.Bracket:
    found = _sums.greatest(
      passes.inside, leaves, entries=_INSIDE, lo=b.lo, hi=b.hi
    )
    return brackets.settle(xp, b, found.astype(integer), k)

  def step(b: brackets.Bracket) -> brackets.Bracket:
    narrow = lambda b: count(b, brackets.next_probes(xp, b, k, dtype))
    few = (b.n_lo - b.n_hi <= _FEW) | (b.n_lo == k) | ~is_open(b)
    stuck = xp.any(is_open(b) & b.slow)
    # Never collect twice in a row: if a column held three entries, a count
    # must separate them first.
    collect_now = (xp.all(few) | stuck) & ~xp.any(is_open(b) & b.even)
    if traced:
      return jax.lax.cond(collect_now, collect, narrow, b)
    return collect(b) if collect_now else narrow(b)

  is_open = lambda b: b.hi - b.lo > one
  bracket = count(
    bracket, brackets.first_probes(xp, xp.asarray(sample), k, size)
  )
  bracket = _while(traced, lambda b: xp.any(is_open(b)), step, bracket)
  return bracket.lo.view(dtype)


def reaches(x: types.Array, threshold: types.Array) -> types.Array:
  """Marks the entries whose magnitude is at least a threshold.

  It compares bits, as ``kth_magnitude`` does: XLA's comparison of floats treats
  denormal numbers as zeros.

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
  dtype = passes.integer(threshold.dtype)
  threshold = passes.bits(threshold, dtype)
  if jnp.iscomplexobj(x):
    # Two programs may round |z| differently, by a fused multiply and add: a
    # magnitude within 4 units in the last place of the threshold equals it.
    threshold = jnp.maximum(threshold - jnp.asarray(4, dtype), 0)
  return passes.bits(x, dtype) >= threshold


def _check_k(k: Any, size: int, models: int) -> None:
  """Checks the shape of k, and its range if it is known."""
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
  """Returns the integer dtype of counts, on the host or in a trace."""
  if not traced or jax.config.read('jax_enable_x64'):
    return np.int64
  if size >= 2**31:
    raise ValueError(
      f'kth_magnitude: {size} entries do not fit an int32 count in a trace; '
      'call it outside jit, or enable x64'
    )
  return np.int32


def _sorted(*samples: types.Array, dtype: np.dtype) -> types.Array:
  """Sorts the bits of all samples, ``[T, s]``."""
  real = [jnp.abs(x) if jnp.iscomplexobj(x) else x for x in samples]
  return passes.sorted_bits([x.astype(dtype) for x in real])


def _draw(leaf: Any, stride: _nodes.Static) -> Any:
  """Reads a sample to the host, so that one leaf at a time is in memory."""
  size = leaf.size // leaf.shape[0]
  drawn = max(round(size / stride.value), 1)
  runs = min(max(drawn // _RUN, 1), _RUNS)
  length = max(drawn // runs, 1)
  first = (np.arange(runs) + 0.5) * (size / runs) - length / 2
  spans = [(max(int(i), 0), min(int(i) + length, size)) for i in first]
  part = reduce.sample(leaf, spans)
  if part is None:
    part = _on_demand.apply_kernel(passes.sample, leaf, stride=stride)
    part = _on_demand.read(part)
  return part if isinstance(part, jax.core.Tracer) else np.asarray(part)


def _widest(dtypes: list[np.dtype]) -> np.dtype:
  """Returns a dtype that holds all: float32 for bfloat16 with float16.

  Magnitudes of complex numbers are floats of half the width.
  """
  dtypes = [np.empty(0, d).real.dtype if d.kind == 'c' else d for d in dtypes]
  widest = max(dtypes, key=lambda dtype: dtype.itemsize)
  mixed = widest.itemsize == 2 and len(set(dtypes)) > 1
  return np.dtype(np.float32) if mixed else np.dtype(widest)


def _while(
  traced: bool,
  condition: Callable[[Any], Any],
  step: Callable[[Any], Any],
  state: Any,
) -> Any:
  """Runs a while loop, on the host or in a trace."""
  if traced:
    return jax.lax.while_loop(condition, step, state)
  while condition(state):
    state = step(state)
  return state
