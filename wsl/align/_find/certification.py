r"""Tests numerically the symmetries that tracing cannot prove.

A router selects experts by rank. If equal scores are common, or not shown to be
rare, the axis of experts is pinned: ``top_k`` breaks ties by position. A
permutation of the experts may still leave the output unchanged, and random
tests show it.

The test is an identity test for the analytic function
:math:`D(\theta) = f(\pi\theta, x) - f(\theta, x)`. On a piece where f is
analytic, D is zero everywhere or only on a set of measure zero. A random
:math:`\theta` therefore exposes a violated identity with probability 1 in exact
arithmetic, if the violation shows on the piece that is drawn. In floating point
it is missed if it is smaller than the bound, or if it needs routes that none
of the ``_TRIALS`` draws takes: a violation on a fraction p of the parameters is
missed with probability :math:`(1 - p)^4`.
"""

from collections.abc import Callable, Sequence
import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _check, _symmetry

_TRIALS = 4
_ROUNDINGS = 1e3  # relative change of an output that counts as none, in eps
_NEVER = (  # reasons that no test can overrule
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
  """Frees pinned factors that pass a numerical test.

  A factor passes if, for several random models and permutations, the output is
  unchanged up to 1000 roundings, while it changes if one leaf alone is
  permuted. The second condition refuses factors whose effect the inputs do not
  show. Then groups that always occur with the factor, such as the hidden units
  of experts, are tested for a dependence on its index.

  Args:
    symmetry: the symmetry that tracing proves.
    suspects: pairs of factors to permute together: indices of one are looked
      up in the other.
    apply_fn: the function ``apply_fn(params, *inputs)``.
    params: its parameters, or their shapes.
    inputs: its other arguments, arrays.
    key: draws models and permutations.

  Returns:
    The symmetry with the additional groups.
  """
  run = _check.compile_outputs(apply_fn, inputs)
  for names in _components(symmetry, suspects):
    freed = _identify(symmetry, names)
    factor = freed.factor[names[0]]
    if _passes(freed, factor, run, params, key):
      symmetry = freed
  # Looking up rows by index hides that their units belong to one expert.
  looked_up = dict.fromkeys(name for pair in suspects for name in pair)
  for name in looked_up:
    found = symmetry.factor.get(name)
    if found is not None and not found.pinned:
      for inner in _inner_groups(symmetry, name):
        changed = _replace(symmetry, inner)
        if _passes(changed, inner, run, params, key):
          symmetry = changed
  return symmetry


def _inner_groups(
  symmetry: _symmetry.Symmetry, outer: str
) -> list[_symmetry.Factor]:
  """Returns groups that occur only with a factor, made to depend on it."""
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
    # The block-wise count is the condition on ``Factor.outer``: the outer
    # factor occurs exactly once in every block of the inner one.
    if counts == {1} and not known and group.name != outer:
      found.append(group._replace(outer=(outer, *group.outer)))
  return found


def _replace(
  symmetry: _symmetry.Symmetry, factor: _symmetry.Factor
) -> _symmetry.Symmetry:
  """Replaces the factor of the same name."""
  factors = (factor if f.name == factor.name else f for f in symmetry.factors)
  return dataclasses.replace(symmetry, factors=tuple(factors))


def _components(
  symmetry: _symmetry.Symmetry, suspects: Sequence[tuple[str, str]]
) -> list[list[str]]:
  """Returns the connected components of the suspects that are pinned."""
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
  # Members of a component share one set; its id identifies the component.
  order = [f.name for f in symmetry.factors]
  found = {id(s): sorted(s, key=order.index) for s in group.values()}
  return list(found.values())


def _identify(
  symmetry: _symmetry.Symmetry, names: Sequence[str]
) -> _symmetry.Symmetry:
  """Identifies several factors and frees the result, named as the first."""
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
  return dataclasses.replace(
    symmetry, factors=tuple(map(one, factors)), axes=axes
  )


def _passes(
  symmetry: _symmetry.Symmetry,
  factor: _symmetry.Factor,
  run: Callable[[types.Params], list[np.ndarray]],
  params: types.Params,
  key: types.PRNGKey,
) -> bool:
  """Tests whether permuting a factor leaves the outputs unchanged.

  Returns:
    True if all trials find an unchanged output, and each leaf with the factor,
    permuted alone, changes it in some trial. A single leaf, such as a codebook
    whose nearest row is looked up, is permuted in half of its columns.
  """
  counts = {
    leaf: sum(s.count(factor.name) for axis in rows for s in axis)
    for leaf, rows in symmetry.axes
  }
  places = [leaf for leaf, count in counts.items() if count]
  inner = any(factor.name in f.outer for f in symmetry.factors)
  # A factor that others depend on has to occur once in a block
  # (``Factor.outer``), and one that is permuted in parts, once in all.
  single = len(places) == 1
  if not places or ((inner or single) and max(counts.values()) > 1):
    return False
  moving = set()
  for trial in range(_TRIALS):
    draw_key, move_key = jax.random.split(jax.random.fold_in(key, trial))
    drawn = _check.perturb(params, draw_key, caller='find_symmetry')
    wanted = run(drawn)
    change = lambda found, wanted=wanted: _check.difference(
      found, wanted, caller='find_symmetry'
    )
    shape = symmetry.table_shape(factor.name)
    permutation = {factor.name: _cycles(move_key, shape)}
    moved = _check.permute_on_host(drawn, permutation, symmetry)
    eps = [np.finfo(x.dtype).eps for x in wanted if x.dtype.kind in 'fc']
    bound = _ROUNDINGS * float(max(eps, default=0.0))
    if change(run(moved)) > bound:
      return False
    # Tightness: without this test, units that the inputs never reach would
    # pass, since permuting them changes nothing.
    for leaf in places:
      plan = symmetry.plan(leaf)
      columns = _columns(plan, factor, move_key) if single else None
      alone = run(_only(leaf, drawn, moved, columns))
      if change(alone) > 10 * bound:
        moving.add(leaf)
  return len(moving) == len(places)


def _only(
  leaf: str, drawn: types.Params, moved: types.Params, columns: Any
) -> types.Params:
  """Takes one leaf, or these columns of it, from the permuted model."""

  def pick(name: str, x: Any, y: Any) -> Any:
    if name != leaf:
      return x
    return y if columns is None else np.where(columns, y, x)

  return tree.map_named(pick, drawn, moved)


def _columns(
  plan: _symmetry.Plan, factor: _symmetry.Factor, key: types.PRNGKey
) -> np.ndarray:
  """Draws half of the columns of a leaf whose rows are those of the factor.

  A permutation of these columns alone makes other rows of the same columns, so
  a function of the set of rows changes and one of sums over rows does not.
  """
  shape = [
    1
    if any(factor in segment for segment in axis)
    else sum(map(_symmetry.width, axis))
    for axis in plan
  ]
  count = math.prod(shape)
  seed = np.asarray(
    jax.random.bits(jax.random.fold_in(key, 1), (4,), np.uint32)
  )
  order = np.random.default_rng(seed).permutation(count)
  return (order < count // 2).reshape(shape)


def _cycles(key: types.PRNGKey, shape: tuple[int, ...]) -> types.Array:
  """Draws cyclic permutations ``shape``: no index is a fixed point."""
  seed = np.asarray(jax.random.bits(key, (4,), np.uint32))
  rng = np.random.default_rng(seed)
  start = np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape)
  order = rng.permuted(start, axis=-1)
  places = np.empty(shape, np.int32)
  np.put_along_axis(places, order, np.roll(order, 1, axis=-1), axis=-1)
  return jnp.asarray(places)
