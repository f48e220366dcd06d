"""Gains of normalisations, absorbed by the maps that read them."""

from collections.abc import Callable, Sequence
import fractions
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _permutation, _symmetry
from wsl.align._gauges.powers import system

_GAIN = re.compile(r'(^|[./_])(scale|gain|gamma|weight|g)$')


class Absorbed(NamedTuple):
  """A model whose gains are 1.

  Attributes:
    params: the model, of the same function.
    gauge: the scales and signs that were applied; ``permute(params,
      invert(gauge, ...), ...)`` restores the gains.
    gains: the names of the gains that are 1, as a regular expression, for
      ``find_symmetry(ones=)``; ``None`` if there are none.
    kept: the gains that could not be absorbed, and why.
  """

  params: types.Params
  gauge: dict[str, types.Array]
  gains: str | None
  kept: dict[str, str]


def absorb_norms(
  params: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  leaves: types.Leaves | None = None,
) -> Absorbed:
  r"""Moves the gains of normalisations into the maps that read them.

  .. math:: \gamma \leftarrow 1, \qquad b \leftarrow \gamma^{-1} \odot b,
    \qquad W \leftarrow \operatorname{diag}(\gamma)\, W

  by the scales (and signs) of the symmetry that act on the gains. The function
  does not change. A residual stream can be rotated only if the gains of its
  norms are 1: give the result's ``gains`` to ``find_symmetry(ones=)``.

  Args:
    params: a model.
    symmetry: its symmetry, with scales and signs.
    leaves: the gains, by a regular expression or a predicate: vectors called
      scale, gain, gamma or weight by default.

  Returns:
    The model, the gauge that was applied, and the gains that were kept: those
    with a zero, those that no scale of the symmetry changes alone (a final norm
    before a tied embedding), and those with negative entries if signs do not
    act on them.

  Raises:
    ValueError: if the model does not fit the symmetry.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> def model(p, x):
    ...   x = x @ p['w']
    ...   x = x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True))
    ...   return (x * p['scale'][None]) @ p['out']
    >>> params = {'w': jnp.ones((2, 3)), 'scale': jnp.asarray([2.0, -1.0, 4.0]),
    ...           'out': jnp.ones((3, 1))}
    >>> symmetry = align.find_symmetry(model, params, jnp.ones((1, 2)))
    >>> found = absorb_norms(params, symmetry=symmetry)
    >>> found.params['scale'].tolist(), found.params['out'].ravel().tolist()
    ([1.0, 1.0, 1.0], [2.0, -1.0, 4.0])
  """
  named = tree.named(params)
  _arguments.check_leaves(symmetry, named, 'absorb_norms: params')
  if leaves is None:
    leaves = lambda name, shape: len(shape) == 1 and bool(_GAIN.search(name))
  chosen = tree.named(tree.select(params, leaves))
  values = {n: np.asarray(tree.read(named[n])) for n in named if chosen[n]}
  kept: dict[str, str] = {}
  for name, value in values.items():
    if not np.all(value):
      kept[name] = 'it has a zero'
  gauge: dict[str, Any] = {}
  done: list[str] = []
  factors = dict.fromkeys(
    f.name for n in values for axis in symmetry.plan(n) for s in axis for f in s
  )
  for factor in factors:
    here = [n for n in values if n not in kept and _on(symmetry, n, factor)]
    done += _solve(symmetry, factor, here, values, gauge, kept)
  several = 'its axis has several parts or factors'
  kept |= {n: several for n in values if n not in done and n not in kept}
  moved = _permutation.permute(
    params, _permutation.identity(symmetry) | gauge, symmetry=symmetry
  )
  one = lambda name, x: (
    tree.apply_kernel(jnp.ones_like, x) if name in done else x
  )
  moved = tree.map_named(one, moved)
  pattern = '|'.join(f'^{re.escape(n)}$' for n in done) or None
  return Absorbed(moved, gauge, pattern, kept)


def with_ones(
  apply_fn: Callable[..., Any], params: types.Params, leaves: types.Leaves
) -> Callable[..., Any]:
  """Returns a function that takes some leaves for ones."""
  chosen = tree.named(tree.select(params, leaves))

  def apply(params: types.Params, *inputs: Any) -> Any:
    one = lambda name, x: jnp.ones(x.shape, x.dtype) if chosen[name] else x
    return apply_fn(tree.map_named(one, params), *inputs)

  return apply


def _on(symmetry: _symmetry.Symmetry, leaf: str, factor: str) -> bool:
  """Returns True if a vector has one factor, this one."""
  plan = symmetry.plan(leaf)
  return [[f.name for f in s] for axis in plan for s in axis] == [[factor]]


def _power(action: _symmetry.Action, leaf: str) -> float:
  """Returns the power of an action on a vector."""
  return sum(p.power for p in action.powers if p.leaf == leaf)


def _solve(
  symmetry: _symmetry.Symmetry,
  factor: str,
  gains: list[str],
  values: dict[str, np.ndarray],
  gauge: dict[str, Any],
  kept: dict[str, str],
) -> list[str]:
  """Adds the scales and signs of one factor that set its gains to 1.

  With P the powers of the actions (columns) on the gains (rows), C solves P C =
  I: the scales are exp(-C log gamma). Parities solve the same modulo 2.
  """
  kinds = {
    kind: [a for a in symmetry.actions if (a.kind, a.factor) == (kind, factor)]
    for kind in ('scale', 'sign')
  }
  matrix = {
    kind: [[_power(action, n) for action in actions] for n in gains]
    for kind, actions in kinds.items()
  }
  negative = [n for n in gains if np.any(values[n] < 0)]
  solved = {
    'scale': _combinations(matrix['scale'], len(kinds['scale']), 0),
    'sign': _combinations(matrix['sign'], len(kinds['sign']), 2),
  }
  able = []
  for k, name in enumerate(gains):
    if solved['scale'][k] is None:
      kept[name] = 'no scale of the symmetry changes it alone'
    elif name in negative and solved['sign'][k] is None:
      kept[name] = 'it has negative entries, and no sign acts on it alone'
    else:
      able.append((k, name))
  for kind, actions in kinds.items():
    for j, action in enumerate(actions):
      table = np.ones(symmetry.action_shape(action.name))
      for k, name in able:
        row = solved[kind][k]
        if row is None or not row[j]:
          continue
        value = values[name].astype(np.float64)
        size = np.abs(value) ** -float(row[j])
        table = table * (np.sign(value) if kind == 'sign' else size)
      if np.any(table != 1):
        wide = tree.wide_dtype(*(values[n] for _, n in able))
        gauge[action.name] = tree.apply_kernel(jnp.array, table.astype(wide))
  return [name for _, name in able]


def _combinations(
  rows: list[list[float]], width: int, modulus: int
) -> list[Sequence[Any] | None]:
  """Returns for each row k the combination of columns that is e_k, or None."""
  # y = P x as equations of both. In solutions the first unknowns are free: y_k
  # is 1 and other y are 0, unless they are no combinations of columns.
  equations = system.System(modulus)
  y = [('y', k) for k in range(len(rows))]
  x = [('x', j) for j in range(width)]
  for k, row in enumerate(rows):
    powers = zip(x, map(fractions.Fraction, row))
    equations.sums_to_zero([(y[k], -1), *powers])
  found: list[Sequence[Any] | None] = [None] * len(rows)
  for solution in equations.solutions([*y, *reversed(x)]):
    reached = [k for k, name in enumerate(y) if name in solution]
    if len(reached) == 1:
      found[reached[0]] = [solution.get(name, 0) for name in x]
  return found
