"""Ranking by magnitude: the building blocks of trim, breadcrumbs and the like.

A method that keeps entries by rank needs three steps: the ranks that bound what
it keeps (``floors``), the magnitudes of these ranks (``magnitudes``), and a
mask (``tree.reaches(x, magnitude)``, which is true for all entries that equal
the magnitude: entries of one magnitude are kept or dropped together).
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _checks, _stack

# A search reads each leaf about so often; floats of 16 bits have few values.
_PASSES, _PASSES_OF_16_BITS = 3, 1
# Entries of a stack that is rather sorted than searched.
_SMALL = 1 << 18


def floors(size: int, *fractions: Any) -> list[Any]:
  """Returns ``floor(fraction * size)`` of each fraction, a number or ``[T]``.

  In float64 on the host; if any fraction is traced, all are rounded in the
  dtype of the fractions, and the counts are int32.
  """
  if any(isinstance(f, jax.core.Tracer) for f in fractions):
    traced = [jnp.floor(jnp.asarray(f) * size) for f in fractions]
    return [x.astype(np.int32) for x in traced]
  fixed = [np.floor(np.asarray(f, np.float64) * size) for f in fractions]
  return [x.astype(np.int64) for x in fixed]


def array_module(*counts: Any) -> Any:
  """Returns ``jax.numpy`` if any count is a jax array, else ``numpy``."""
  return jnp if any(isinstance(k, jax.Array) for k in counts) else np


def magnitudes(
  function: str,
  deltas: types.Deltas,
  ranks: Callable[..., Sequence[Any]],
  *fractions: types.Tree,
  scope: str,
  finish: Callable[[Any], Any] = lambda found: found,
) -> types.Tree:
  """Returns the magnitudes of K ranks of each model, 1 being the largest.

  All K are found by one search where leaves are on demand, so that a leaf is
  read as often as for one rank.

  Args:
    function: the public function, as the user called it.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    ranks: maps a number of entries, and the fractions of a leaf, to K ranks
      between 0 and that number, each one number or ``[T]``; called with the
      size of a model or of a leaf.
    *fractions: trees with a number or ``[T]`` at each leaf; in scope
      ``'global'`` the same at all of them.
    scope: ``'global'`` ranks over the whole model, ``'leaf'`` in each leaf.
    finish: in scope ``'global'``: a function of the magnitudes ``[K, T]``, of
      numpy or jax.numpy, that is computed once for all leaves.

  Returns:
    For each leaf ``[K, T]``, in the widest dtype ranked; inf at rank 0. Or what
    ``finish`` returns.

  Raises:
    ValueError: if ``scope`` is unknown.
  """
  models = _stack.count(function, deltas)

  def bounds(size: int, *at_leaf: Any) -> Any:
    rows = ranks(size, *at_leaf)
    xp = array_module(*rows)
    return xp.stack([xp.broadcast_to(xp.asarray(k), (models,)) for k in rows])

  def whole_model() -> types.Tree:
    size = int(np.sum([x.size // models for x in jax.tree.leaves(deltas)]))
    rows = bounds(size, *(jax.tree.leaves(f)[0] for f in fractions))
    like = finish(np.ones(rows.shape))
    found = _statistic(lambda: finish(_find(deltas, rows)), deltas, like)
    if tree.on_accelerators(deltas):
      found = tree.read(found)  # while the host plans the edits
    leaves, treedef = jax.tree.flatten(deltas)
    if not tree.is_traced(deltas):
      return jax.tree.unflatten(treedef, [found] * len(leaves))
    search = functools.cache(
      lambda: tree.separate(tree.read(found)[None], [0] * len(leaves))
    )
    each = lambda i: _statistic(lambda: search()[i], deltas, like)
    return jax.tree.unflatten(treedef, map(each, range(len(leaves))))

  def each_leaf() -> types.Tree:
    size = lambda x: x.size // models
    by_leaf = jax.tree.map(
      lambda x, *at_leaf: bounds(size(x), *at_leaf), deltas, *fractions
    )
    if tree.is_traced(deltas) or tree.on_accelerators(deltas):
      leaves, treedef = jax.tree.flatten(deltas)
      rows = jax.tree.leaves(by_leaf)
      search = functools.cache(lambda: _find_in_leaves(deltas, rows))
      each = lambda i: _statistic(lambda: search()[i], leaves[i], rows[i])
      return jax.tree.unflatten(treedef, map(each, range(len(leaves))))

    def one(x: types.Array, rows: Any) -> Any:
      if x.size and tree.in_files(x) and x.dtype.kind != 'c':
        small = x.size <= _SMALL
        find = _find_in_small_leaf if small else _find_in_leaf
        return _statistic(lambda: find(x, rows), x, rows)
      found = tree.apply_kernel(_find_in_leaf, x, rows)
      return _statistic(lambda: tree.read(found), x, rows)

    return jax.tree.map(one, deltas, by_leaf)

  scopes = {'global': whole_model, 'leaf': each_leaf}
  return _checks.choose(f'{function}: scope', scope, scopes)()


def _statistic(
  compute: Callable[[], Any], deltas: types.Tree, like: Any
) -> Any:
  """Computes an array of the shape of another one: now, or on demand."""
  leaves = [x for x in jax.tree.leaves(deltas) if x.size]
  if not leaves:
    return compute()
  dtype = np.empty(0, tree.wide_dtype(*leaves)).real.dtype
  short = all(x.dtype.itemsize <= 2 for x in leaves)
  passes = _PASSES_OF_16_BITS if short else _PASSES
  return tree.statistic(
    compute, deltas, shape=like.shape, dtype=dtype, passes=passes
  )


def _find(deltas: types.Tree, ranks: Any) -> Any:
  """Returns the magnitudes of ranks ``[K, T]`` over all leaves, ``[K, T]``."""
  xp = array_module(ranks)
  return _infinite_at_0(tree.kth_magnitude(deltas, xp.maximum(ranks, 1)), ranks)


def _find_in_leaf(x: types.Array, ranks: types.Array) -> types.Array:
  """Returns the magnitudes of ranks ``[K, T]`` in one leaf, ``[K, T]``."""
  if not x.size:
    return jnp.zeros(ranks.shape, np.empty(0, x.dtype).real.dtype)
  return _find(x, ranks)


def _find_in_small_leaf(x: types.Array, ranks: np.ndarray) -> np.ndarray:
  """Returns the magnitudes of ranks ``[K, T]`` by a partial sort."""
  stack = np.asarray(tree.read(x)).reshape(x.shape[0], -1)
  dtype = tree.wide_dtype(x)
  size = stack.shape[1]
  columns = []
  for values, rank in zip(np.abs(stack.astype(dtype)), ranks.T):
    at = size - np.clip(rank, 1, size)
    columns.append(np.where(rank, np.partition(values, at)[at], np.inf))
  return np.stack(columns, axis=1)


def _find_in_leaves(deltas: types.Tree, ranks: Sequence[Any]) -> list[Any]:
  """Returns ``_find_in_leaf`` of all leaves, by one search."""
  names, leaves = zip(*tree.named(deltas).items())
  found = [
    _find_in_leaf(x, k) if not x.size else k for x, k in zip(leaves, ranks)
  ]
  full = [i for i, x in enumerate(leaves) if x.size]
  ks = [array_module(ranks[i]).maximum(ranks[i], 1) for i in full]
  several = tree.kth_in_leaves(
    [tree.read(leaves[i]) for i in full], ks, names=[names[i] for i in full]
  )
  for i, rows in zip(full, several):
    found[i] = _infinite_at_0(rows, ranks[i])
  return found


def _infinite_at_0(found: Any, ranks: Any) -> Any:
  """Returns magnitudes, inf where the rank is 0."""
  if isinstance(ranks, np.ndarray) and ranks.all():
    return found
  xp = array_module(found)
  return xp.where(ranks == 0, np.asarray(np.inf, found.dtype), found)
