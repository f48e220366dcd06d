"""Trimming by squared norm, or by standard deviations: variants of TIES."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _checks, _per_leaf, _stack

_ENTRIES = tree.Entries(lead=1, neutral=0.0)


def keep_energy(
  deltas: types.Deltas, *, energy: Any, scope: str
) -> types.Deltas:
  """Keeps the fewest large entries that have a share of the squared norm."""
  models = _stack.count('trim', deltas)
  _per_leaf.one_scope('trim', scope, energy=energy)
  meaning = 'energy is the share of the squared norm that is kept'
  check = lambda value: _checks.fraction(
    'trim', 'energy', value, meaning, positive=True
  )
  shares = _per_leaf.at_leaves('trim', 'energy', energy, deltas, models, check)
  if scope == 'leaf':
    return jax.tree.map(
      lambda x, e: tree.apply_kernel(_leading, x, energy=e), deltas, shares
    )
  share = jax.tree.leaves(shares)[0]
  leaves = jax.tree.leaves(deltas)
  wide = any(tree.wide_dtype(x) == np.float64 for x in leaves)
  kind = np.dtype(np.float64 if wide else np.float32)
  find = lambda: _largest_floor(deltas, share, kind)
  floor = tree.statistic(
    find, deltas, shape=(models,), dtype=kind, passes=8 * kind.itemsize
  )
  return tree.map(_above, deltas, floor=floor)


def keep_deviations(
  deltas: types.Deltas, *, deviations: Any, scope: str
) -> types.Deltas:
  """Keeps the entries further from the mean than some standard deviations."""
  models = _stack.count('trim', deltas)
  _per_leaf.one_scope('trim', scope, deviations=deviations)
  check = lambda value: _checks.at_least_zero('trim', 'deviations', value)
  factors = _per_leaf.at_leaves(
    'trim', 'deviations', deviations, deltas, models, check
  )

  def moments() -> Any:
    return tree.total(_power_sums, deltas, entries=_ENTRIES)

  sums: Any = None
  if scope == 'global':
    shape = (2, models)
    sums = tree.statistic(moments, deltas, shape=shape, dtype=np.float64)
  size = sum(int(np.prod(x.shape[1:])) for x in jax.tree.leaves(deltas))

  def outside(x: Any, factor: Any) -> Any:
    given = {} if sums is None else {'sums': sums, 'size': tree.Static(size)}
    return tree.apply_kernel(_outside, x, factor=factor, **given)

  return jax.tree.map(outside, deltas, factors)


def _largest_floor(deltas: types.Deltas, share: Any, kind: np.dtype) -> Any:
  """Returns the largest magnitudes above which lies the share of each model.

  The squared norm of the entries that reach a magnitude falls with it. Floats
  that are not negative have the order of their bits, so that the magnitude is
  found bit by bit, exactly, without a sort of the model.
  """
  traced = tree.is_traced([deltas, share])
  xp: Any = jnp if traced else np
  bits = {4: np.int32, 8: np.int64}[kind.itemsize]

  def reached(floor: Any) -> Any:
    return tree.total(_mass, deltas, entries=_ENTRIES, floor=floor)

  def number(code: Any) -> Any:
    if traced:
      return jax.lax.bitcast_convert_type(code, kind)
    return code.view(kind)

  low = xp.zeros(share.shape, bits)
  whole = reached(number(low))
  wanted = xp.asarray(share).astype(whole.dtype) * whole
  # `number(low)` reaches the share, and infinity, which is no entry, does not.
  high = xp.full(share.shape, np.asarray(np.inf, kind).view(bits), bits)

  def step(_: Any, bounds: Any) -> Any:
    low, high = bounds
    middle = low + (high - low) // 2
    enough = reached(number(middle)) >= wanted
    return xp.where(enough, middle, low), xp.where(enough, high, middle)

  steps = 8 * kind.itemsize
  loop: Callable[..., Any] = jax.lax.fori_loop if traced else _loop
  low, _ = loop(0, steps, step, (low, high))
  return number(low)


def _loop(start: int, stop: int, step: Any, state: Any) -> Any:
  """Does on the host what ``jax.lax.fori_loop`` does in a trace."""
  for i in range(start, stop):
    state = step(i, state)
  return state


def _mass(x: types.Array, *, floor: types.Array) -> types.Array:
  """Sums the squares of the entries of each model that reach its floor."""
  magnitude = jnp.abs(tree.wide(jax.lax.stop_gradient(x)))
  bound = _stack.expand_rank(floor.astype(magnitude.dtype), magnitude)
  return tree.sum_entries(jnp.where(magnitude >= bound, magnitude**2, 0))


def _above(x: types.Array, *, floor: types.Array) -> types.Array:
  """Keeps the entries that reach the floor of their model."""
  magnitude = jnp.abs(tree.wide(x))
  bound = _stack.expand_rank(floor.astype(magnitude.dtype), magnitude)
  return jnp.where(magnitude >= bound, x, jnp.zeros_like(x))


def _leading(x: types.Array, *, energy: types.Array) -> types.Array:
  """Keeps the largest entries of a leaf up to its share of the squared norm."""
  if not x.size:
    return x
  flat = jnp.abs(tree.wide(jax.lax.stop_gradient(x))).reshape(len(x), -1)
  falling = jnp.flip(jnp.sort(flat, 1), 1)
  mass = jnp.cumsum(falling**2, 1)
  wanted = energy.astype(mass.dtype)[:, None] * mass[:, -1:]
  last = jnp.argmax(mass >= wanted, 1)
  floor = jnp.take_along_axis(falling, last[:, None], 1)[:, 0]
  return _above(x, floor=floor)


def _power_sums(x: types.Array) -> types.Array:
  """Sums the entries and their squares, ``[2, T]``."""
  wide = tree.wide(x)
  return jnp.stack([tree.sum_entries(wide), tree.sum_entries(wide**2)])


def _outside(
  x: types.Array,
  *,
  factor: types.Array,
  sums: types.Array | None = None,
  size: int | None = None,
) -> types.Array:
  """Keeps the entries with |x - mean| > factor * std, of a leaf or of all."""
  wide = tree.wide(x)
  sums = _power_sums(x) if sums is None else sums
  count = max(wide[0].size if size is None else size, 1)
  total, squares = (s.astype(wide.dtype) for s in sums)
  mean = total / count
  # (sum x^2 - d mean^2) / (d - 1), with a mean near 0 for task vectors.
  variance = (squares - count * mean**2) / max(count - 1, 1)
  radius = factor.astype(wide.dtype) * jnp.sqrt(jnp.maximum(variance, 0))
  expand = lambda v: _stack.expand_rank(v, wide)
  kept = jnp.abs(wide - expand(mean)) > expand(radius)
  return jnp.where(kept, x, jnp.zeros_like(x))
