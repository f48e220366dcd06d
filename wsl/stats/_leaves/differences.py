"""Differences of two models, leaf by leaf and exactly."""

from collections.abc import Iterator
import functools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from wsl import tree, types
from wsl.stats._leaves import ulps as ulps_lib

# Numbers of ulps are counted by their length in bits: 0, 1, 2-3, 4-7, ...
_POWERS = np.asarray([1 << i for i in range(64)], np.uint64)
BINS = len(_POWERS) + 1
_BLOCK = 1 << 15  # entries at once: their float64 arrays fit in a cache


class LeafDifference(NamedTuple):
  """The differences of two leaves a and b of one shape.

  Attributes:
    entries: their number.
    differing: the number of entries with other bits; all of them if the dtypes
      differ.
    max_abs: the largest ``|a - b|``, exact up to float64.
    max_rel: the largest ``|a - b| / max(|a|, |b|)``, 0 .. 2.
    unordered: the number of entries that are NaN in one of the two only.
    max_ulps: the largest distance in ``ulps`` of the other entries. If the
      dtypes are two floats, both are rounded to the coarser one first; None for
      other pairs.
    distance: the norm of ``a - b``.
    norm: the norm of ``a``.
    bins: how many of the ordered entries differ by 0, 1, 2-3, 4-7, ... ulps,
      ``[65]``; None as for ``max_ulps``.
  """

  entries: int
  differing: int
  max_abs: float
  max_rel: float
  unordered: int
  max_ulps: int | None
  distance: float
  norm: float
  bins: np.ndarray | None

  @property
  def relative(self) -> float:
    """The distance divided by the norm of a; 0 if both are 0."""
    if not self.norm:
      return math.inf if self.distance else 0.0
    return self.distance / self.norm


def leaf_differences(
  a: types.Params, b: types.Params
) -> Iterator[tuple[str, LeafDifference]]:
  r"""Compares two models leaf by leaf, bit by bit and in ulps.

  Of each leaf, with :math:`u_p` the number of ``ulps`` between two entries,

  .. math::
    \max_p |a_p - b_p|, \quad \max_p \frac{|a_p - b_p|}{\max(|a_p|, |b_p|)},
    \quad \max_p u_p, \quad \frac{\|a - b\|}{\|a\|}.

  Leaves in files are read in chunks, both models at once: memory does not
  depend on their size, except in Orbax and compressed files. Integers are
  compared as integers. Entries with equal bits, and two NaNs, differ by 0;
  other pairs with a value that is not finite by infinity.

  Args:
    a: the reference, in memory or on demand; floats, integers or bools.
    b: a model with the names of a, dotted or nested (``tree.like``), and its
      shapes; dtypes may differ.

  Yields:
    The name in a, and the difference, numbers in names in order. Nothing is
    read before its leaf is asked for.

  Raises:
    ValueError: if names or shapes differ, naming the leaf.

  Example:
    >>> a = {'w': np.float32([1, 2, 3])}
    >>> b = {'w': np.nextafter(a['w'], np.float32([0, 2, 4]))}
    >>> ((name, found),) = leaf_differences(a, b)
    >>> name, found.differing, found.max_ulps, found.bins[:2].tolist()
    ('w', 2, 1, [1, 2])
  """
  ours = tree.named(a)
  theirs, extra = tree.common(ours, b)
  missing = [name for name in ours if name not in theirs]
  if missing or extra:
    one, other = 'ba' if missing else 'ab'
    name = f"'{[*missing, *extra][0]}'"
    raise ValueError(f'leaf_differences: {one} has no leaf {name} of {other}')
  for name, x in ours.items():
    shapes = tuple(np.shape(x)), tuple(np.shape(theirs[name]))
    if shapes[0] != shapes[1]:
      raise ValueError(
        f"leaf_differences: leaf '{name}' has shape {shapes[1]} in b, "
        f'{shapes[0]} in a: compare models of one shape'
      )
  order = tree.in_order(ours)
  return _each({n: ours[n] for n in order}, {n: theirs[n] for n in order})


def _each(
  a: dict[str, Any], b: dict[str, Any]
) -> Iterator[tuple[str, LeafDifference]]:
  """Compares leaves in order, by two streams of chunks."""
  streams = tree.stream(a), tree.stream(b)
  for name, leaf in a.items():
    left = leaf.size
    found: LeafDifference | None = None
    x = y = np.empty(0)
    while found is None or left:
      x = x if x.size else next(streams[0])[1]
      y = y if y.size else next(streams[1])[1]
      size = min(x.size, y.size, _BLOCK)
      part = _compare(x[:size], y[:size])
      found = part if found is None else _join(found, part)
      x, y, left = x[size:], y[size:], left - size
    yield name, found


def _join(a: LeafDifference, b: LeafDifference) -> LeafDifference:
  """Returns the difference of two parts of a leaf."""
  most, bins = None, None
  if a.max_ulps is not None and b.max_ulps is not None:
    most = max(a.max_ulps, b.max_ulps)
  if a.bins is not None and b.bins is not None:
    bins = a.bins + b.bins
  return LeafDifference(
    a.entries + b.entries,
    a.differing + b.differing,
    max(a.max_abs, b.max_abs),
    max(a.max_rel, b.max_rel),
    a.unordered + b.unordered,
    most,
    math.hypot(a.distance, b.distance),
    math.hypot(a.norm, b.norm),
    bins,
  )


def _compare(x: np.ndarray, y: np.ndarray) -> LeafDifference:
  """Compares two arrays ``[n]``."""
  size, norm = x.size, _norm(x)
  same = x.dtype == y.dtype
  if same and np.array_equal(_bytes(x), _bytes(y)):
    return LeafDifference(size, 0, 0.0, 0.0, 0, 0, 0.0, norm, _bins(size))
  differing = size
  if same:  # Only the entries with other bits are compared as numbers.
    chosen = functools.reduce(np.logical_or, (_bytes(x) != _bytes(y)).T)
    x, y = x[chosen], y[chosen]
    differing = len(x)
  gaps, ratios = _gaps(x, y)
  unordered = int(np.sum(_is_nan(x) != _is_nan(y)))
  most, bins = None, None
  if (pair := _of_one_dtype(x, y)) is not None:
    found = ulps_lib.ulps(*pair)
    if unordered:
      found = found[_is_nan(x) == _is_nan(y)]
    most, bins = int(found.max(initial=0)), _bins(size - len(x), found)
    if jnp.issubdtype(x.dtype, np.integer):
      gaps = found.astype(np.float64)
  return LeafDifference(
    size,
    differing,
    float(gaps.max(initial=0.0)),
    float(ratios.max(initial=0.0)),
    unordered,
    most,
    math.sqrt(np.sum(np.square(gaps))),
    norm,
    bins,
  )


def _bytes(x: np.ndarray) -> np.ndarray:
  """Returns the bits of ``[n]`` as unsigned integers ``[n, words]``."""
  word = min(x.dtype.itemsize, 8)
  bits = np.ascontiguousarray(x).view(f'uint{8 * word}')
  return bits.reshape(x.size, x.dtype.itemsize // word)


def _norm(x: np.ndarray) -> float:
  """Returns the norm of the finite entries."""
  # Not by BLAS, whose threads wait for each other longer than they compute.
  wide = np.abs(_wide(x))
  if not np.isfinite(wide).all():
    wide = wide[np.isfinite(wide)]
  return math.sqrt(np.sum(np.square(wide)))


def _wide(x: np.ndarray) -> np.ndarray:
  """Returns an array in float64, or complex128."""
  is_complex = jnp.issubdtype(x.dtype, np.complexfloating)
  with np.errstate(invalid='ignore'):  # NaN of ml_dtypes
    return x.astype(np.complex128 if is_complex else np.float64)


def _is_nan(x: np.ndarray) -> np.ndarray:
  """Returns which entries are NaN; no integer is."""
  with np.errstate(invalid='ignore'):  # NaN of ml_dtypes
    return x != x


def _gaps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the differences of entries, absolute and relative."""
  x, y = _wide(x), _wide(y)
  with np.errstate(invalid='ignore', over='ignore', divide='ignore'):
    gaps = np.abs(x - y)
    ratios = gaps / np.maximum(np.abs(x), np.abs(y))
  strange = ~np.isfinite(ratios)  # among them two zeros
  if strange.any():
    x, y = x[strange], y[strange]
    equal = (x == y) | (np.isnan(x) & np.isnan(y))
    gaps[strange] = ratios[strange] = np.where(equal, 0.0, np.inf)
  return gaps, ratios


def _of_one_dtype(
  x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
  """Rounds floats of two dtypes to the coarser one; None for other pairs."""
  if x.dtype == y.dtype:
    return x, y
  if not all(jnp.issubdtype(z.dtype, np.floating) for z in (x, y)):
    return None
  coarse = min((x.dtype, y.dtype), key=lambda d: ml_dtypes.finfo(d).nmant)
  with np.errstate(over='ignore', invalid='ignore'):
    return x.astype(coarse), y.astype(coarse)


def _bins(equal: int, found: np.ndarray | None = None) -> np.ndarray:
  """Counts numbers of ulps by their length in bits, and equal entries."""
  bins = np.zeros(BINS, np.int64)
  if found is not None:
    _, lengths = np.frexp(found.astype(np.float64))  # of 0 and 1: 0 and 1
    if found.max(initial=0) > 1 << 53:  # float64 may round to a power of two
      lengths = np.searchsorted(_POWERS, found, side='right')
    bins += np.bincount(lengths, minlength=BINS)
  bins[0] += equal
  return bins
