"""The layer-wise least squares of a partial merge, from joint Gram matrices."""

import functools
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp

from wsl import types
from wsl.align._partial import gram_layout

_HIGHEST = jax.lax.Precision.HIGHEST


def refit(
  of_a: types.Array,
  of_b: types.Array,
  start: types.Array,
  matrix: types.Array,
  layout: gram_layout.Layout,
  *,
  ridge: float,
) -> types.Array:
  """Solves for a leaf of the partial merge.

  Args:
    of_a: A's leaf.
    of_b: B's leaf.
    start: W_0, the leaf of the partial merge.
    matrix: joint Gram matrices, ``[groups, 2 d, 2 d]``.
    layout: the layout of the leaf.
    ridge: rho, in units of the mean square of an input.

  Returns:
    The leaf, like ``start``; NaN where the system is singular.
  """
  return _refit(
    of_a,
    of_b,
    start,
    matrix,
    layout.groups[:2],
    layout.inputs[:2],
    layout.outputs[:2],
    ridge,
    axes=layout.axes,
    sizes=layout.groups.sizes,
    classes=_classes(layout),
  )


def _classes(layout: gram_layout.Layout) -> tuple[tuple[bool, bool], ...]:
  """Returns whose outputs there are: of both models, of A, of B alone."""
  groups, outputs = layout.groups, layout.outputs
  in_a = (groups.a >= 0)[:, None] & (outputs.a >= 0)[None, :]
  in_b = (groups.b >= 0)[:, None] & (outputs.b >= 0)[None, :]
  kinds = ((True, True), (True, False), (False, True))
  return tuple(k for k in kinds if ((in_a == k[0]) & (in_b == k[1])).any())


Pair: TypeAlias = tuple[types.Array, types.Array]  # indices into A and B


@functools.partial(jax.jit, static_argnames=('axes', 'sizes', 'classes'))
def _refit(
  of_a: types.Array,
  of_b: types.Array,
  start: types.Array,
  matrix: types.Array,
  groups: Pair,
  inputs: Pair,
  outputs: Pair,
  ridge: types.Array,
  *,
  axes: tuple[int, ...],
  sizes: tuple[int, int],
  classes: tuple[tuple[bool, bool], ...],
) -> types.Array:
  """Views leaves as ``[groups, d, m]``, and solves group by group."""
  dtype = jnp.result_type(start.dtype, matrix.dtype)
  front = range(len(axes))
  a, b, first = (
    _as_rows(jnp.moveaxis(x, axes, front), len(axes), count).astype(dtype)
    for x, count in zip((of_a, of_b, start), (*sizes, len(groups[0])))
  )
  matrix, ridge = matrix.astype(dtype), jnp.asarray(ridge, dtype)
  solved = jax.lax.map(
    lambda x: _solve(a, b, matrix, inputs, outputs, ridge, x[0], x[1], classes),
    (first, groups),
  )
  moved = jnp.moveaxis(start, axes, front).shape
  flat = jnp.swapaxes(solved, 0, 1).reshape(moved)
  return jnp.moveaxis(flat, front, axes)


def _as_rows(x: types.Array, inputs: int, groups: int) -> types.Array:
  """Views a leaf, input axes first, as ``[groups, d, m]``."""
  d = math.prod(x.shape[:inputs])
  return jnp.swapaxes(x.reshape(d, groups, -1), 0, 1)


def _solve(
  of_a: types.Array,
  of_b: types.Array,
  matrix: types.Array,
  inputs: Pair,
  outputs: Pair,
  ridge: types.Array,
  start: types.Array,
  group: Pair,
  classes: tuple[tuple[bool, bool], ...],
) -> types.Array:
  """Returns W ``[d, m]`` of a group, by a system for each class of outputs."""
  a, b = (x[jnp.maximum(g, 0)] for x, g in zip((of_a, of_b), group))
  joint = matrix[jnp.maximum(*group)]
  squares, cross_a, cross_b = _normal_equations(joint, a, b, group, inputs)
  in_a, in_b = (_has(g, i) for g, i in zip(group, outputs))
  of_both = [_pick(cross_a, outputs[0], 1), _pick(cross_b, outputs[1], 1)]
  target = _mix(of_both, in_a, in_b, 1)
  residual = target - jnp.matmul(squares, start, precision=_HIGHEST)
  has_a, has_b = (_has(g, i) for g, i in zip(group, inputs))
  rows = jnp.stack([(has_a & p) | (has_b & q) for p, q in classes])
  columns = jnp.stack([(in_a == p) & (in_b == q) for p, q in classes])
  solve = jax.vmap(_regularised, (None, None, 0, None))
  steps = solve(squares, residual, rows, ridge)
  return start + jnp.where(columns[:, None], steps, 0).sum(0)


def _normal_equations(
  joint: types.Array,
  a: types.Array,
  b: types.Array,
  group: Pair,
  inputs: Pair,
) -> tuple[types.Array, types.Array, types.Array]:
  """Returns the means of z z^T, and of z y^T for y of A and of B."""
  d = len(joint) // 2
  in_a, in_b = (_has(g, i) for g, i in zip(group, inputs))
  halves = lambda x, axis: [
    _pick(part, i, axis) for part, i in zip(jnp.split(x, 2, axis), inputs)
  ]
  z = _mix(halves(joint, 0), in_a, in_b, 0)
  return (
    _mix(halves(z, 1), in_a, in_b, 1),
    jnp.matmul(z[:, :d], a, precision=_HIGHEST),
    jnp.matmul(z[:, d:], b, precision=_HIGHEST),
  )


def _has(group: types.Array, index: types.Array) -> types.Array:
  return (group >= 0) & (index >= 0)


def _pick(x: types.Array, index: types.Array, axis: int) -> types.Array:
  return jnp.take(x, jnp.maximum(index, 0), axis)


def _mix(
  parts: list[types.Array], in_a: types.Array, in_b: types.Array, axis: int
) -> types.Array:
  """Adds the parts of A and B: the mean where an entry is in both."""
  total = jnp.zeros_like(parts[0])
  for part, mine, other in zip(parts, (in_a, in_b), (in_b, in_a)):
    share = jnp.where(mine, jnp.where(other, 0.5, 1), 0).astype(part.dtype)
    total += part * jnp.expand_dims(share, 1 - axis)
  return total


def _regularised(
  squares: types.Array,
  residual: types.Array,
  rows: types.Array,
  ridge: types.Array,
) -> types.Array:
  """Solves (squares + rho) W = residual on some rows; the others stay 0."""
  diagonal = jnp.where(rows, jnp.diagonal(squares), 0)
  count = jnp.maximum(rows.sum(), 1).astype(squares.dtype)
  mean = diagonal.sum() / count
  # Inputs that are always zero give no residual: any rho will do.
  rho = jnp.where(mean > 0, ridge * mean, 1)
  both = rows[:, None] & rows[None]
  system = jnp.where(both, squares, 0) + jnp.diag(jnp.where(rows, rho, 1))
  factor = jax.scipy.linalg.cho_factor(system)
  return jax.scipy.linalg.cho_solve(
    factor, jnp.where(rows[:, None], residual, 0)
  )
