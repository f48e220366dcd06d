"""The bracket of the k-th magnitude: where to probe it, how to shrink it.

All functions run on the host with numpy or in a trace with jax.numpy, which is
their first argument.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

PROBES = 4
# Probes around the expected position, in standard deviations ...
_NEAR = np.asarray([-2.5, -0.6, 0.6, 2.5])
# ... the outer ones farther away, as the density may vary within an octave ...
_MARGIN = np.asarray([-0.2, 0.0, 0.0, 0.2])
# ... or evenly over the bracket, after a pass that hardly narrowed it.
_EVEN = np.asarray([0.2, 0.4, 0.6, 0.8])
# Width of the sample's bounds, in units of the last place, below which values
# around the expected one are probed.
_CLOSE = 8


class Bracket(NamedTuple):
  """Bounds of the R thresholds, ``lo <= bits < hi``; every field ``[R]``."""

  lo: Any
  hi: Any
  n_lo: Any  # entries with bits >= lo; at least k
  n_hi: Any  # entries with bits >= hi; less than k


def is_open(b: Bracket) -> Any:
  """Returns whether each threshold is unknown, ``[R]``."""
  return b.hi - b.lo > np.ones((), b.lo.dtype)


def first_probes(
  xp: Any, sample: Any, drawn: Any, k: Any, size: np.ndarray
) -> Any:
  """Probes the sample's order statistics around the rank of k.

  The sample is sorted, ``[R, s]``; its first ``drawn`` entries count, ``[R]``.
  The expected value is probed together with its successor: if many entries are
  equal to it, the pair closes the bracket at once. Where few values are likely,
  as in floats of 16 bits, four consecutive ones are probed instead.
  """
  # Of s sampled entries, those below the k-th are binomial with p = 1 - k / N:
  # their fraction has standard deviation sqrt(p (1 - p) / s). 3.5 of them on
  # both sides bracket the k-th with probability 0.9995.
  drawn = drawn.astype(np.float32)
  share = 1 - k.astype(np.float32) / size.astype(np.float32)
  deviation = xp.sqrt(share * (1 - share) / drawn)
  rank = lambda z: (share + np.float32(z) * deviation) * drawn
  ranks = xp.stack([rank(-3.5), rank(0), rank(3.5)], axis=1)
  ranks = xp.clip(ranks, 0, drawn[:, None] - 1).astype(np.int32)
  probes = xp.take_along_axis(sample, ranks, axis=1)
  expected = probes[:, 1:2]
  successor = expected + np.ones((), probes.dtype)
  close = probes[:, 2:3] - probes[:, 0:1] <= _CLOSE
  consecutive = expected + np.arange(-1, 3).astype(probes.dtype)[None]
  # A probe at 0 carries no information: every entry reaches it.
  spread = xp.concatenate([probes, successor], axis=1)
  return xp.maximum(xp.where(close, consecutive, spread), 1)


def next_probes(xp: Any, b: Bracket, k: Any, dtype: np.dtype, even: Any) -> Any:
  """Interpolates between the bracket's counts, or divides it evenly."""
  # If the m entries inside were uniform, the position of the k-th would have
  # mean p = (n_lo - k + 1/2) / m and variance about (p (1 - p) m + 1) / m^2.
  real = np.float64 if b.lo.dtype == np.int64 or xp is np else np.float32
  entries = (b.n_lo - b.n_hi).astype(real)
  share = ((b.n_lo - k).astype(real) + real(0.5)) / entries
  deviation = xp.sqrt(share * (1 - share) * entries + 1) / entries
  width = (b.hi - b.lo).astype(real)
  octaves = width / real(2 ** jnp.finfo(dtype).nmant)
  near = share[:, None] + deviation[:, None] * _NEAR.astype(real)[None]
  near = near + octaves[:, None] * _MARGIN.astype(real)[None]
  fraction = xp.where(even, _EVEN.astype(real)[None], near)
  fraction = xp.clip(fraction, 0, 1)
  # Bits are piecewise linear in the magnitude with a kink at each power of 2,
  # so a smooth density of magnitudes is not smooth over bits. Interpolate bits
  # over several octaves, magnitudes within one.
  first, last = b.lo[:, None], b.hi[:, None] - 1
  places = first + (fraction * width[:, None]).astype(first.dtype)
  least, greatest = (v.view(dtype).astype(real) for v in (first, last))
  greatest = xp.minimum(greatest, real(jnp.finfo(dtype).max))  # not inf
  values = least + fraction * (greatest - least)
  values = values.astype(dtype).view(first.dtype)
  probes = xp.where((octaves < 1)[:, None], values, places)
  return xp.clip(probes, first + 1, xp.maximum(last, first + 1))


def narrow(xp: Any, b: Bracket, probes: Any, counts: Any, k: Any) -> Bracket:
  """Moves the bracket to the closest probes with n >= k and with n < k."""
  enough = counts >= k[:, None]
  column = lambda x: x[:, None]
  return Bracket(
    lo=xp.where(enough, probes, column(b.lo)).max(1),
    hi=xp.where(enough, column(b.hi), probes).min(1),
    n_lo=xp.where(enough, counts, column(b.n_lo)).min(1),
    n_hi=xp.where(enough, column(b.n_hi), counts).max(1),
  )


def settle(xp: Any, b: Bracket, found: Any, k: Any) -> Bracket:
  """Takes the k-th of the collected entries, or shrinks the bracket to them."""
  # ``found`` holds hi - least and greatest - lo + 1 of each column. Entries are
  # written as bits - lo + 1 here, so that 0 stands for no entry.
  below, above = found
  width = (b.hi - b.lo)[:, None] + np.ones((), b.lo.dtype)
  least = xp.where(below > 0, width - below, 0)
  # A column with one entry reports it twice.
  single = least == above
  entries = xp.concatenate([xp.where(single, 0, least), above], axis=1)
  entries = xp.sort(entries.astype(b.lo.dtype), axis=1)
  # n_hi entries are above the bracket: take number k - n_hi from the top.
  number, inside = entries.shape[1], b.n_lo - b.n_hi
  ranks = xp.stack([k - b.n_hi, inside, inside + 1], axis=1)
  places = xp.clip(number - ranks, 0, number - 1)
  kth, last, further = xp.take_along_axis(entries, places, axis=1).T
  # All were found if their number is the count; a third entry of a column, or
  # an equal one, would be missing.
  fits = (inside <= number) & (last > 0)
  all_found = fits & ((inside == number) | (further == 0))
  one = np.ones((), b.lo.dtype)
  snapped = b.hi - below.max(1)
  # If exactly k entries have bits >= lo, the least of them is the k-th.
  known = all_found | (b.n_lo == k)
  lo = xp.where(all_found, b.lo + kth - one, snapped)
  return b._replace(
    lo=lo,
    hi=xp.where(known, lo + one, b.lo + above.max(1)),
  )
