"""Products and inverses of permutations and actions.

Tables with values are computed on the host: they are small, and JAX would
compile a program for each operation and shape.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _permutation, _symmetry
from wsl.align._gauges import elements


def compose(
  first: _permutation.Permutation,
  second: _permutation.Permutation,
  *,
  symmetry: _symmetry.Symmetry,
) -> _permutation.Permutation:
  r"""Returns the composition of two permutations.

  .. math:: (\pi_2 \circ \pi_1)\,\theta = \pi_2 (\pi_1 \theta)

  Args:
    first: the permutation that is applied first.
    second: the permutation that is applied to the result.
    symmetry: the symmetry of both.

  Returns:
    The composition.

  Raises:
    ValueError: if one of them belongs to another symmetry.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> turn = {'a:0': jnp.asarray([1, 2, 0])}
    >>> compose(turn, turn, symmetry=symmetry)['a:0'].tolist()
    [2, 0, 1]
  """
  _permutation.check_permutation(first, symmetry, 'compose: first')
  _permutation.check_permutation(second, symmetry, 'compose: second')
  xp, (first, second) = _to_host(
    *(_wide(tables, symmetry) for tables in (first, second))
  )
  return to_device(product(first, second, symmetry, xp))


def product(
  first: _permutation.Permutation,
  second: _permutation.Permutation,
  symmetry: _symmetry.Symmetry,
  xp: Any,
) -> _permutation.Permutation:
  """Returns the tables of ``second`` after ``first``, in ``xp``."""

  def one(group: _symmetry.Factor) -> types.Array:
    # Let s, t be the tables of the outer factor and of this group. The first
    # permutation gives y[i, j] = x[s1(i), t1(i, j)], the second
    # z[i, j] = y[s2(i), t2(i, j)] = x[s1(s2(i)), t1(s2(i), t2(i, j))]: reindex
    # the rows of t1 by s2, then take its columns at t2.
    table = _reindex(first[group.name], group.outer, second, symmetry, xp)
    return xp.take_along_axis(table, second[group.name], axis=-1)

  found = {group.name: one(group) for group in symmetry.groups}
  for name in {**first, **second}:
    if name in symmetry.action:
      # s2 P2 s1 P1 = (s2 (P2 s1)) P2 P1, with P2 s1 the reindexed table.
      if name not in first:
        found[name] = second[name]
        continue
      found[name] = _reindex_action(first[name], name, second, symmetry, xp)
      if name in second:
        found[name] = elements.times(symmetry, name, found[name], second[name])
  return found


def invert(
  permutation: _permutation.Permutation, *, symmetry: _symmetry.Symmetry
) -> _permutation.Permutation:
  r"""Returns the inverse permutation, :math:`\pi^{-1}`.

  Args:
    permutation: a permutation.
    symmetry: its symmetry.

  Returns:
    Its inverse.

  Raises:
    ValueError: if it belongs to another symmetry.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> invert({'a:0': jnp.asarray([1, 2, 0])},
    ...        symmetry=symmetry)['a:0'].tolist()
    [2, 0, 1]
  """
  _permutation.check_permutation(permutation, symmetry, 'invert: permutation')
  xp, (permutation,) = _to_host(_wide(permutation, symmetry))
  return to_device(inverse(permutation, symmetry, xp))


def inverse(
  permutation: _permutation.Permutation, symmetry: _symmetry.Symmetry, xp: Any
) -> _permutation.Permutation:
  """Returns the tables of the inverse, in ``xp``."""
  found: _permutation.Permutation = {}
  # y[i, j] = x[s(i), t(i, j)] gives x[s(i), k] = y[i, t_i^-1(k)]. The rows of
  # t^-1 are indexed by i; the inverse of s, computed before, reindexes them.
  for group in symmetry.groups:  # outer groups first
    table = xp.argsort(permutation[group.name], axis=-1).astype(np.int32)
    found[group.name] = _reindex(table, group.outer, found, symmetry, xp)
  last: Any = None
  for name, table in permutation.items():
    if name in symmetry.action:
      # (s P)^-1 = P^-1 s^-1 = (P^-1 s^-1) P^-1.
      undone = elements.inverse(symmetry, name, table, last, xp)
      last = undone if symmetry.action[name].kind == 'linear' else last
      found[name] = _reindex_action(undone, name, found, symmetry, xp)
  return found


def _wide(
  tables: _permutation.Permutation, symmetry: _symmetry.Symmetry
) -> _permutation.Permutation:
  """Returns the tables of actions in float32 or wider."""
  float32 = lambda x: x if tree.is_float(x) else x.astype(np.float32)
  return {
    name: tree.wide(float32(x)) if name in symmetry.action else x
    for name, x in tables.items()
  }


def _to_host(
  *given: _permutation.Permutation,
) -> tuple[Any, list[_permutation.Permutation]]:
  """Returns ``numpy`` and copies on the host, or ``jax.numpy`` and the tables.

  The latter if a table is traced, spread over processes, or of a dtype in which
  numpy computes no products.
  """
  for x in jax.tree.leaves(given):
    traced = isinstance(x, jax.core.Tracer)
    if traced or not getattr(x, 'is_fully_addressable', True):
      return jnp, list(given)
    if x.dtype.kind not in 'iu' and x.dtype not in (np.float32, np.float64):
      return jnp, list(given)
  host: list[Any] = [{k: np.asarray(x) for k, x in g.items()} for g in given]
  return np, host


def to_device(tables: _permutation.Permutation) -> _permutation.Permutation:
  """Returns JAX arrays; a float64 action stays in numpy if x64 is off."""

  def one(x: Any) -> Any:
    narrowed = x.dtype == np.float64 and not jax.config.read('jax_enable_x64')
    return x if narrowed else jax.device_put(x)

  return {name: one(x) for name, x in tables.items()}


def _reindex(
  table: types.Array,
  names: tuple[str, ...],
  permutation: _permutation.Permutation,
  symmetry: _symmetry.Symmetry,
  xp: Any,
) -> types.Array:
  """Permutes the indices of a table by factors, ``[*sizes of names, ...]``."""
  for i, outer in enumerate(names):
    if outer in permutation:
      nest = (*symmetry.factor[outer].outer, outer)
      places = [names.index(name) for name in nest]
      index = _blocks.spread(permutation[outer], places, table.ndim, xp)
      table = xp.take_along_axis(table, index, axis=i)
  return table


def _reindex_action(
  table: types.Array,
  name: str,
  permutation: _permutation.Permutation,
  symmetry: _symmetry.Symmetry,
  xp: Any,
) -> types.Array:
  """Permutes the indices of an action's table, those it mixes included."""
  action = symmetry.action[name]
  if action.kind == 'phase':
    return _reindex(table, action.over, permutation, symmetry, xp)
  factor = symmetry.factor[action.factor]
  table = _reindex(table, factor.outer, permutation, symmetry, xp)
  if factor.name in permutation:
    count = len(factor.outer)
    own = permutation[factor.name]
    for axis in range(count, table.ndim):
      places = [*range(count), axis]
      index = _blocks.spread(own, places, table.ndim, xp)
      table = xp.take_along_axis(table, index, axis=axis)
  return table
