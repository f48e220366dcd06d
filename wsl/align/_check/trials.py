r"""Whether permuting a factor leaves the outputs of random models unchanged.

This is an identity test for the analytic function
:math:`D(\theta) = f(\pi\theta, x) - f(\theta, x)`. On a piece where f is
analytic, D is zero everywhere or only on a set of measure zero. A random
:math:`\theta` therefore exposes a violated identity with probability 1 in exact
arithmetic, if the violation shows on the piece that is drawn. In floating point
it is missed if it is smaller than the bound, or if it needs routes that none
of the ``_TRIALS`` draws takes: a violation on a fraction p of the parameters is
missed with probability :math:`(1 - p)^4`.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _symmetry
from wsl.align._check import on_host, outputs, random_params

_TRIALS = 4
_ROUNDINGS = 1e3  # relative change of an output that counts as none, in eps


def passes(
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
    drawn = random_params.perturb(params, draw_key, caller='find_symmetry')
    wanted = run(drawn)
    change = lambda found, wanted=wanted: outputs.difference(
      found, wanted, caller='find_symmetry'
    )
    shape = symmetry.table_shape(factor.name)
    permutation = {factor.name: _cycles(move_key, shape)}
    moved = on_host.permute(drawn, permutation, symmetry)
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
