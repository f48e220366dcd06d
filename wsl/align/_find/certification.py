"""Frees pinned factors that numbers, not the reading of a function, allow.

Which experts a router picks is decided by their rank, so that reading pins
the axis of experts; that permuting experts changes nothing shows in outputs.
"""

from collections.abc import Callable, Sequence
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _check, _symmetry

_TRIALS = 4
_NEVER = (
  'an axis of the input',
  'an axis of the output',
  'the function does not use it',
)


def certify(
  symmetry: _symmetry.Symmetry,
  suspects: Sequence[tuple[str, str]],
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: tuple[Any, ...],
  key: types.PRNGKey,
) -> _symmetry.Symmetry:
  """Frees pinned factors that pass a numeric test.

  They pass if for several random models and permutations the output stays, to
  a thousand roundings, while it changes if a single leaf is permuted. Groups
  in it, as hidden units of experts, are tried one outer index at a time.

  Args:
    symmetry: what is known.
    suspects: pairs of factors that should move together, as the indices of
      one were looked up in the other.
    apply_fn: the function.
    params: its parameters, or their shapes.
    inputs: its inputs, arrays.
    key: draws models and permutations.

  Returns:
    The symmetry with more groups, if any passed.
  """
  run = _check.compiled(apply_fn, inputs)
  for names in _components(symmetry, suspects):
    freed = _merge(symmetry, names)
    factor = freed.factor[names[0]]
    if _passes(freed, factor, run, params, key):
      symmetry = freed
      for deeper in _deeper(symmetry, names[0]):
        inner = symmetry.factor[deeper.name]._replace(outer=deeper.outer)
        changed = _replace(symmetry, inner)
        if _passes(changed, inner, run, params, key):
          symmetry = changed
  return symmetry


def _deeper(symmetry: _symmetry.Symmetry, outer: str) -> list[_symmetry.Factor]:
  """Returns groups that occur with a factor only, made to depend on it."""
  depends = {name for f in symmetry.factors for name in f.outer}
  found = []
  for group in symmetry.groups:
    counts = {
      block.count(outer)
      for _, axes in symmetry.axes
      for choice in itertools.product(*axes)
      if group.name in (block := tuple(itertools.chain(*choice)))
    }
    known = group.name in depends or outer in group.outer
    if counts == {1} and not known and group.name != outer:
      found.append(group._replace(outer=(outer, *group.outer)))
  return found


def _replace(
  symmetry: _symmetry.Symmetry, factor: _symmetry.Factor
) -> _symmetry.Symmetry:
  factors = (factor if f.name == factor.name else f for f in symmetry.factors)
  return _symmetry.Symmetry(tuple(factors), symmetry.axes)


def _components(
  symmetry: _symmetry.Symmetry, suspects: Sequence[tuple[str, str]]
) -> list[list[str]]:
  """Gathers the pinned factors that should move together."""
  looked_up = {name for pair in suspects for name in pair}
  group = {
    f.name: {f.name}
    for f in symmetry.factors
    if f.name in looked_up and f.pinned and not f.pinned.startswith(_NEVER)
  }
  for a, b in suspects:
    if a in group and b in group and group[a] is not group[b]:
      group[a] |= group[b]
      for name in group[b]:
        group[name] = group[a]
  order = [f.name for f in symmetry.factors]
  found = {id(s): sorted(s, key=order.index) for s in group.values()}
  return list(found.values())


def _merge(
  symmetry: _symmetry.Symmetry, names: Sequence[str]
) -> _symmetry.Symmetry:
  """Makes factors one, and frees it."""
  rename = lambda name: names[0] if name in names else name

  def one(factor: _symmetry.Factor) -> _symmetry.Factor:
    if factor.name == names[0]:
      return factor._replace(pinned='')
    outer = tuple(dict.fromkeys(map(rename, factor.outer)))
    return factor._replace(outer=outer)

  factors = [f for f in symmetry.factors if f.name not in names[1:]]
  axes = tuple(
    (leaf, tuple(tuple(tuple(map(rename, s)) for s in axis) for axis in rows))
    for leaf, rows in symmetry.axes
  )
  return _symmetry.Symmetry(tuple(map(one, factors)), axes)


def _passes(
  symmetry: _symmetry.Symmetry,
  factor: _symmetry.Factor,
  run: Callable[[types.Params], list[np.ndarray]],
  params: types.Params,
  key: types.PRNGKey,
) -> bool:
  counts = {
    leaf: sum(s.count(factor.name) for axis in rows for s in axis)
    for leaf, rows in symmetry.axes
  }
  places = [leaf for leaf, count in counts.items() if count]
  inner = any(factor.name in f.outer for f in symmetry.factors)
  if len(places) < 2 or (inner and max(counts.values()) > 1):
    return False
  moving = set()
  for trial in range(_TRIALS):
    draw_key, move_key = jax.random.split(jax.random.fold_in(key, trial))
    drawn = _check.perturbed(params, draw_key)
    wanted = run(drawn)
    shape = symmetry.table_shape(factor.name)
    turn = {factor.name: _cycles(move_key, shape)}
    moved = _check.move(drawn, turn, symmetry)
    exact = [np.finfo(x.dtype).eps for x in wanted if x.dtype.kind in 'fc']
    bound = 1e3 * float(max(exact, default=0.0))
    if _check.difference(run(moved), wanted) > bound:
      return False
    for leaf in places:
      pick = lambda name, x, y, leaf=leaf: y if name == leaf else x
      alone = run(tree.map_named(pick, drawn, moved))
      if _check.difference(alone, wanted) > 10 * bound:
        moving.add(leaf)
  return len(moving) == len(places)


def _cycles(key: types.PRNGKey, shape: tuple[int, ...]) -> types.Array:
  """Draws permutations that leave nothing where it was."""
  seed = np.asarray(jax.random.bits(key, (4,), np.uint32))
  rng = np.random.default_rng(seed)
  start = np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape)
  order = rng.permuted(start, axis=-1)
  places = np.empty(shape, np.int32)
  np.put_along_axis(places, order, np.roll(order, 1, axis=-1), axis=-1)
  return jnp.asarray(places)
