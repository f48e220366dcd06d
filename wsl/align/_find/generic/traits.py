"""Properties of the entries of an array, axis by axis."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp

Dims: TypeAlias = frozenset[int]
NONE: Dims = frozenset()
_ALL_ROOTS = -1  # all bits


class Traits(NamedTuple):
  r"""Properties that the entries of an array have almost surely.

  Attributes:
    roots: the roots that it depends on, a bit for each.
    nonzero: whether every entry differs from zero.
    distinct: axes along which no two entries are equal.
    alive: axes along which at most one entry is zero.
    flat: axes along which all entries are equal.
    hot: axes along which at most one entry is 1 or True, of zeros and ones.
    cold: axes along which at most one entry is 0 or False, of zeros and ones.
    masked: axes along which no two entries are equal, and at most one entry is
      infinite. Sums and products with it are not known to be distinct.
    joint: by root, axes over which the entries have a joint density.
    linear: by root, axes over which the entries are either all zero or have a
      joint density, for linear combinations of independent arrays: the entry
      at e is :math:`\sum_j c_j r_{je}`, where c does not depend on e.
    bounded: whether adding it does not round other terms away: it holds no
      infinity, such as those of masks, and no constant above 1e6.
  """

  roots: int = _ALL_ROOTS
  nonzero: bool = False
  distinct: Dims = NONE
  alive: Dims = NONE
  flat: Dims = NONE
  hot: Dims = NONE
  cold: Dims = NONE
  masked: Dims = NONE
  joint: Mapping[int, Dims] = {}
  linear: Mapping[int, Dims] = {}
  bounded: bool = True


def root(number: int, shape: Sequence[int], dtype: Any) -> Traits:
  """Returns the traits of an argument of the function."""
  if not jnp.issubdtype(dtype, jnp.floating):
    return Traits(1 << number)
  dims = frozenset(range(len(shape)))
  entries = {1 << number: dims}
  return close(Traits(1 << number, joint=entries, linear=entries), len(shape))


def union(traits: Sequence[Traits]) -> int:
  """Returns the roots of several arrays."""
  found = 0
  for one in traits:
    found |= one.roots
  return found


def common(x: Traits, y: Traits) -> Traits:
  """Returns the traits of either of two arrays, one of which is chosen."""
  return Traits(
    x.roots | y.roots,
    nonzero=x.nonzero and y.nonzero,
    distinct=x.distinct & y.distinct,
    alive=x.alive & y.alive,
    flat=x.flat & y.flat,
    bounded=x.bounded and y.bounded,
  )


def scan_slice(traits: Traits) -> Traits:
  """Returns the traits of a scanned array at one step."""
  rest = lambda dims: frozenset(d - 1 for d in dims if d)
  return map_axes(traits, rest, rest, rest)


def separate_steps(traits: Traits, shape: Sequence[int]) -> bool:
  """Returns whether each step of a scanned array has entries of its own.

  Given the slices of all other steps, its entries still have a density.
  """
  wide = {d for d, n in enumerate(shape) if n > 1}
  return any(
    wide <= dims and root == traits.roots for root, dims in traits.joint.items()
  )


def close(t: Traits, ndim: int) -> Traits:
  """Adds implied traits: a density implies distinct, nonzero entries."""
  nonzero = t.nonzero or bool(t.joint)
  distinct = t.distinct.union(*t.joint.values())
  alive = frozenset(range(ndim)) if nonzero else t.alive | distinct
  return t._replace(nonzero=nonzero, distinct=distinct, alive=alive)


def map_axes(
  t: Traits,
  one: Callable[[Dims], Dims],
  several: Callable[[Dims], Dims],
  flat: Callable[[Dims], Dims],
) -> Traits:
  """Maps axes: of single lines, of subarrays, and of repeated entries."""
  by_root = lambda table: {m: several(dims) for m, dims in table.items()}
  return t._replace(
    distinct=one(t.distinct),
    alive=one(t.alive),
    flat=flat(t.flat),
    hot=one(t.hot),
    cold=one(t.cold),
    masked=one(t.masked),
    joint=by_root(t.joint),
    linear=by_root(t.linear),
  )


def drop(t: Traits, axes: Dims) -> Traits:
  """Renumbers the axes after some are dropped."""
  number = lambda d: d - sum(a < d for a in axes)
  move = lambda dims: frozenset(number(d) for d in dims - axes)
  return map_axes(t, move, move, move)
