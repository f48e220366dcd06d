"""The search for magnitudes of ranks: brackets that shrink by passes."""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl.tree import _nodes, _on_demand, _program, _sums
from wsl.tree._chunks import programs
from wsl.tree._ranks import batches as batches_lib
from wsl.tree._ranks import bits, brackets, passes
from wsl.tree._ranks import samples as samples_lib

# A column of ``inside`` holds two entries. Of m entries in B columns, about
# m^3 / (6 B^2) columns receive three: 0.04 for both pairs of B and m here. The
# columns are sorted, which takes longer than to count a model of few entries.
_LARGE, _COLUMNS, _FEW = 1 << 22, (4096, 16384), (160, 400)
# A probe is at least 1, the bits of the smallest number: zeros are not counted.
_COUNT = programs.Entries(lead=1, neutral=0.0)
# The bits of NaN are above infinity, where each bracket ends.
_INSIDE = programs.Entries(lead=1, neutral=math.nan)


def find(
  leaves: Sequence[Any],
  groups: passes.Groups,
  ks: Sequence[Any],
  sizes: Sequence[int],
  roles: Sequence[Any],
) -> Any:
  """Finds the magnitudes of ranks in each of G groups of leaves, ``[G, K, T]``.

  The rows of a bracket are the G K T thresholds. All leaves are of one group,
  or each has its own. Leaves of one role are sharded alike.
  """
  dtype = widest([leaf.dtype for leaf in leaves])
  integer = bits.integer(dtype)
  models = leaves[0].shape[0]
  # A sort in a trace takes as long as a pass, so its sample is smaller.
  some = 64 if any(isinstance(x, jax.core.Tracer) for x in leaves) else 16
  strides = [size / np.clip(size / some, *samples_lib.SIZES) for size in sizes]
  samples = samples_lib.draw(leaves, [float(strides[g]) for g in groups])
  traced = any(isinstance(x, jax.core.Tracer) for x in [*ks, *samples])
  if traced and _program.narrowed(dtype):
    raise ValueError(
      f'kth_magnitude: ranks of {dtype} leaves in a trace: set jax_enable_x64, '
      'or give numbers that are known'
    )
  if _program.narrowed(dtype):
    # Probes have 64 bits, and a pass over a narrower leaf would narrow them.
    leaves = [_widened(x, dtype) for x in leaves]
  xp: Any = jnp if traced else np
  wide = _counter(traced, max(sizes))
  ranks = max([len(k) for k in ks if np.ndim(k) == 2], default=1)
  k = xp.stack([_spread(xp, k, (ranks, models), wide) for k in ks])
  rows = lambda x: x.reshape(len(sizes), ranks * models, *x.shape[1:])
  each = lambda x: np.repeat(np.asarray(x), ranks * models)
  highest = np.asarray(np.inf, dtype).view(integer) + 1
  bracket = brackets.Bracket(
    lo=xp.zeros(k.size, integer),
    hi=xp.full(k.size, highest, integer),
    n_lo=xp.asarray(each(sizes), wide),
    n_hi=xp.zeros(k.size, wide),
  )
  k = k.reshape(-1)
  grouped = lambda b: jax.tree.map(rows, b)
  batches = batches_lib.of_leaves(leaves, roles)
  together = functools.partial(_together, leaves, groups, batches)

  def passes_over(kernel: Any, **hyper: Any) -> list[_nodes.Computed]:
    """Returns the passes over one leaf each, outside a trace."""
    hyper |= {'groups': _nodes.Static((0,))}
    return [_nodes.Computed(kernel, (x,), hyper) for x in leaves]

  large = max(sizes) >= _LARGE
  columns = {'columns': _nodes.Static(_COLUMNS[large])}

  def count(b: brackets.Bracket, probes: Any, own: Any) -> brackets.Bracket:
    if traced:
      counts = together(passes.count, probes=rows(probes), own=own)
    else:
      counts = _sums.total_of(
        passes_over(passes.count, probes=rows(probes)), _COUNT
      )
    counts = counts.reshape(probes.shape).astype(wide)
    return brackets.narrow(xp, b, probes, counts, k)

  def collect(b: brackets.Bracket, _: Any, own: Any) -> brackets.Bracket:
    if traced:
      found = together(
        passes.collect, bracket=grouped(b), k=rows(k), own=own, **columns
      )
      return jax.tree.map(lambda x: x.reshape(-1), found)
    ends = passes_over(passes.inside, lo=rows(b.lo), hi=rows(b.hi), **columns)
    found = _sums.greatest_of(ends, _INSIDE)
    return brackets.settle(xp, b, found[0].astype(integer), k)

  def collects_next(b: brackets.Bracket, slow: Any, collected: Any) -> Any:
    """Decides on the next pass: to collect the entries, or to count them."""
    few = (b.n_lo - b.n_hi <= _FEW[large]) | (b.n_lo == k)
    # Never collect twice in a row: if a column held three entries, a count
    # must separate them first.
    some = xp.all(few | ~brackets.is_open(b)) | xp.any(
      brackets.is_open(b) & slow
    )
    return some & ~collected

  def step(state: tuple[brackets.Bracket, Any, Any]) -> Any:
    b, probes, collects = state
    if traced:
      limits = jnp.column_stack([probes, b.lo, b.hi - b.lo])
      own = batches_lib.own_limits(rows(limits), groups, batches)
      new = jax.lax.cond(collects, collect, count, b, probes, own)
    else:
      new = (collect if collects else count)(b, probes, None)
    new = jax.tree.map(functools.partial(xp.where, brackets.is_open(b)), new, b)
    # The count left more than a quarter of the bracket.
    slow = (new.hi - new.lo > (b.hi - b.lo) // 4) & ~collects
    probes = brackets.next_probes(xp, new, k, dtype, collects)
    return new, probes, collects_next(new, slow, collects)

  sample, drawn = samples_lib.sort(samples, groups, dtype, xp)
  sample = xp.repeat(sample, ranks, axis=0).reshape(k.size, -1)
  if drawn == list(sizes):
    # The samples are all entries, in ascending order. NaN counts as infinity.
    place = (xp.asarray(each(sizes), wide) - k)[:, None]
    kth = xp.take_along_axis(sample, place, axis=1)
    kth = xp.minimum(kth, xp.asarray(highest - 1, integer))
    return kth.view(dtype).reshape(len(sizes), ranks, models)
  probes = brackets.first_probes(xp, sample, each(drawn), k, each(sizes))
  no = xp.asarray(False)
  unknown = lambda state: xp.any(brackets.is_open(state[0]))
  state = (bracket, probes, collects_next(bracket, no, no))
  found, *_ = _while(traced, unknown, step, state)
  return found.lo.view(dtype).reshape(len(sizes), ranks, models)


def _widened(leaf: Any, dtype: np.dtype) -> Any:
  """Returns a leaf of fewer bits than the search as one of its dtype."""
  if widest([leaf.dtype]).itemsize >= dtype.itemsize:
    return leaf
  leaf = _on_demand.defer(leaf)
  return _on_demand.apply_kernel(_cast, leaf, dtype=_nodes.Static(dtype))


def _cast(x: Any, *, dtype: np.dtype) -> Any:
  """Returns the magnitudes of a leaf in a wider dtype."""
  return jnp.abs(x).astype(dtype)


def _together(
  leaves: Sequence[Any],
  groups: passes.Groups,
  batches: batches_lib.Batches,
  kernel: Callable[..., Any],
  **hyper: Any,
) -> Any:
  """Makes a pass over all leaves at once, in a trace."""
  arrays = [_on_demand.read(x) for x in leaves]
  hyper |= {'groups': _nodes.Static(groups), 'batches': _nodes.Static(batches)}
  return _on_demand.apply_kernel(kernel, *arrays, **hyper)


def _spread(xp: Any, k: Any, shape: tuple[int, ...], dtype: Any) -> Any:
  """Broadcasts one number, ``[T]`` or ``[K, T]`` to the shape ``[K, T]``."""
  return xp.broadcast_to(xp.asarray(k).astype(dtype), shape)


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


def widest(dtypes: list[np.dtype]) -> np.dtype:
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
