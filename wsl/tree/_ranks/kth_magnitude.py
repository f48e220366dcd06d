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

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _nodes, _on_demand, _sums
from wsl.tree._chunks import programs, reduce
from wsl.tree._ranks import bits, brackets, passes

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
    k: a count from 1 to the number of entries of one model; one number, one for
      each model, ``[T]``, or K for each, ``[K, T]``; may be traced.

  Returns:
    ``[T]`` or ``[K, T]`` magnitudes, in the widest dtype of the leaves.

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
  leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.size]
  if not leaves:
    raise ValueError('kth_magnitude: the tree holds no entries')
  size = sum(leaf.size // leaf.shape[0] for leaf in leaves)
  models = leaves[0].shape[0]
  _check_k(k, size, models)
  found = _search(leaves, (0,) * len(leaves), [k], [size])[0]
  return found if np.ndim(k) == 2 else found[0]


def kth_in_leaves(leaves: Sequence[Any], ks: Sequence[Any]) -> list[Any]:
  """Returns the magnitudes of several ranks in each of several leaves.

  Arrays in a trace are searched together: each pass serves all leaves, and is
  compiled once for them.

  Args:
    leaves: stacked leaves of one model, ``[T, ...]``, none of them empty.
    ks: for each leaf K counts for each model, ``[K, T]``.

  Returns:
    For each leaf ``[K, T]``, in its dtype.

  Example:
    >>> import jax.numpy as jnp
    >>> leaf = jnp.asarray([[1.0, -4.0, 3.0]])
    >>> kth_in_leaves([leaf], [jnp.asarray([[1], [2]])])[0].tolist()
    [[4.0], [3.0]]
  """
  if not leaves:
    return []
  sizes = [leaf.size // leaf.shape[0] for leaf in leaves]
  found = _search(leaves, tuple(range(len(leaves))), ks, sizes)
  dtypes = [_widest([leaf.dtype]) for leaf in leaves]
  return [rows.astype(dtype) for rows, dtype in zip(found, dtypes)]


def _search(
  leaves: Sequence[Any],
  groups: passes.Groups,
  ks: Sequence[Any],
  sizes: Sequence[int],
) -> list[Any]:
  """Finds the magnitudes of ranks ``[K, T]`` in each of G groups of leaves.

  The rows of a bracket are the G K T thresholds.
  """
  dtype = _widest([leaf.dtype for leaf in leaves])
  integer = bits.integer(dtype)
  models = leaves[0].shape[0]
  strides = [size / np.clip(size / 64, *_SAMPLE) for size in sizes]
  samples = [_draw(x, float(strides[g])) for x, g in zip(leaves, groups)]
  traced = any(isinstance(x, jax.core.Tracer) for x in [*ks, *samples])
  xp: Any = jnp if traced else np
  wide = _counter(traced, max(sizes))
  ranks = max([len(k) for k in ks if np.ndim(k) == 2], default=1)
  k = xp.stack([_spread(xp, k, (ranks, models), wide) for k in ks])
  rows = lambda x: x.reshape(len(sizes), ranks * models, *x.shape[1:])
  flat = lambda x: x.reshape(k.size, *x.shape[2:])
  each = lambda x: np.repeat(np.asarray(x), ranks * models)
  one = np.ones((), integer)
  highest = np.asarray(np.inf, dtype).view(integer) + 1
  bracket = brackets.Bracket(
    lo=xp.zeros(k.size, integer),
    hi=xp.full(k.size, highest, integer),
    n_lo=xp.asarray(each(sizes), wide),
    n_hi=xp.zeros(k.size, wide),
    slow=xp.zeros(k.size, bool),
    even=xp.zeros(k.size, bool),
  )
  k = k.reshape(-1)
  visit = functools.partial(_visit, leaves, groups, traced)

  def count(b: brackets.Bracket, probes: Any) -> brackets.Bracket:
    counts = flat(visit(passes.count, probes=rows(probes)))
    return brackets.narrow(xp, b, probes, counts.astype(wide), k)

  def collect(b: brackets.Bracket, _: Any) -> brackets.Bracket:
    found = visit(passes.inside, lo=rows(b.lo), hi=rows(b.hi))
    found = xp.moveaxis(found.astype(integer), 1, 0)
    return brackets.settle(xp, b, found.reshape(2, k.size, -1), k)

  def step(state: tuple[brackets.Bracket, Any]) -> Any:
    b, probes = state
    few = (b.n_lo - b.n_hi <= _FEW) | (b.n_lo == k) | ~is_open(b)
    stuck = xp.any(is_open(b) & b.slow)
    # Never collect twice in a row: if a column held three entries, a count
    # must separate them first.
    collect_now = (xp.all(few) | stuck) & ~xp.any(is_open(b) & b.even)
    if traced:
      b = jax.lax.cond(collect_now, collect, count, b, probes)
    else:
      b = collect(b, probes) if collect_now else count(b, probes)
    return b, brackets.next_probes(xp, b, k, dtype)

  is_open = lambda b: b.hi - b.lo > one
  sample, drawn = _sorted_groups(samples, groups, dtype, xp)
  sample = xp.repeat(sample, ranks, axis=0).reshape(k.size, -1)
  probes = brackets.first_probes(xp, sample, each(drawn), k, each(sizes))
  unknown = lambda state: xp.any(is_open(state[0]))
  found, _ = _while(traced, unknown, step, (bracket, probes))
  result = found.lo.view(dtype).reshape(len(sizes), ranks, models)
  return _separate(result) if traced else list(result)


def _visit(
  leaves: Sequence[Any],
  groups: passes.Groups,
  traced: bool,
  kernel: Callable[..., Any],
  **hyper: Any,
) -> Any:
  """Makes a pass over all leaves: at once in a trace, else one by one."""
  if traced:
    static = _nodes.Static(groups)
    leaves = [_on_demand.read(x) for x in leaves]
    return _on_demand.apply_kernel(kernel, *leaves, groups=static, **hyper)
  hyper['groups'] = _nodes.Static((0,))
  if kernel is passes.inside:
    return _sums.greatest(kernel, leaves, entries=_INSIDE, **hyper)
  return _sums.total(kernel, leaves, entries=_COUNT, **hyper)


def _separate(x: types.Array) -> list[types.Array]:
  """Returns the parts ``x[i]`` of traced magnitudes in buffers of their own.

  XLA fuses slices into the kernels that use them. Kernels of equal leaves would
  differ by the place of the slice, and each would be compiled. It does not fuse
  across a conditional, whose predicate here is true, but depends on the data.
  """
  zeros = lambda x: [jnp.zeros(x.shape[1:], x.dtype)] * len(x)
  return jax.lax.cond(x[0, 0, 0] >= 0, list, zeros, x)


def _spread(xp: Any, k: Any, shape: tuple[int, ...], dtype: Any) -> Any:
  """Broadcasts one number, ``[T]`` or ``[K, T]`` to the shape ``[K, T]``."""
  return xp.broadcast_to(xp.asarray(k).astype(dtype), shape)


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
  dtype = bits.integer(threshold.dtype)
  threshold = bits.of(threshold, dtype)
  if jnp.iscomplexobj(x):
    # Two programs may round |z| differently, by a fused multiply and add: a
    # magnitude within 4 units in the last place of the threshold equals it.
    threshold = jnp.maximum(threshold - jnp.asarray(4, dtype), 0)
  return bits.of(x, dtype) >= threshold


def _check_k(k: Any, size: int, models: int) -> None:
  """Checks the shape of k, and its range if it is known."""
  fits = np.shape(k) in ((), (models,)) or np.shape(k)[1:] == (models,)
  if not fits:
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


def _sorted_groups(
  samples: Sequence[Any], groups: passes.Groups, dtype: np.dtype, xp: Any
) -> tuple[Any, list[int]]:
  """Sorts the bits of each group's samples.

  Returns:
    ``[G, T, s]``, padded at the end by the largest integer, and the number of
    entries of each group.
  """
  drawn = [0] * (max(groups) + 1)
  for x, g in zip(samples, groups):
    drawn[g] += x.shape[1]
  found = _on_demand.apply_kernel(
    _sorted,
    *samples,
    groups=_nodes.Static(groups),
    dtype=_nodes.Static(dtype),
  )
  return xp.asarray(found), drawn


def _sorted(
  *samples: types.Array, groups: passes.Groups, dtype: np.dtype
) -> types.Array:
  """Sorts the bits of each group's samples, ``[G, T, s]``."""
  integer = bits.integer(dtype)
  parts: dict[int, list[types.Array]] = {}
  for x, g in zip(samples, groups):
    parts.setdefault(g, []).append(bits.of(x, integer))
  joined = [jnp.concatenate(parts[g], axis=1) for g in sorted(parts)]
  longest = max(x.shape[1] for x in joined)
  padded = [
    jnp.pad(
      x,
      [(0, 0), (0, longest - x.shape[1])],
      constant_values=np.iinfo(integer).max,
    )
    for x in joined
  ]
  return jnp.sort(jnp.stack(padded), axis=2)


def _draw(leaf: Any, stride: float) -> Any:
  """Reads a sample to the host, so that one leaf at a time is in memory."""
  size = leaf.size // leaf.shape[0]
  drawn = max(round(size / stride), 1)
  runs = min(max(drawn // _RUN, 1), _RUNS)
  length = max(drawn // runs, 1)
  first = (np.arange(runs) + 0.5) * (size / runs) - length / 2
  spans = [(max(int(i), 0), min(int(i) + length, size)) for i in first]
  part = reduce.sample(leaf, spans)
  if part is None:
    part = _on_demand.apply_kernel(
      passes.sample, leaf, stride=_nodes.Static(stride)
    )
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
