r"""The layer-wise least squares of a partial merge, from joint Gram matrices.

The inputs z and targets y of a map of the new model are linear in those of the
two models, :math:`z = M x` with :math:`x = (x_A, x_B)`, where M averages merged
entries and copies separate ones. With the joint Gram matrix
:math:`G = E[x x^\top]`, all moments of the least squares are closed-form:

.. math:: E[z z^\top] = M G M^\top, \quad
  E[z y_A^\top] = M G_{:, A} A, \quad E[z y_B^\top] = M G_{:, B} B

and the minimum of :math:`E \|W^\top z - y\|^2 + \rho \|W - W_0\|^2` is
:math:`W_0 + (E[z z^\top] + \rho)^{-1} (E[z y^\top] - E[z z^\top] W_0)`.
Here W has inputs as rows, like the leaves.
"""

import functools
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.align._partial import gram_layout

Pair: TypeAlias = tuple[types.Array, types.Array]  # indices into A and B


@functools.partial(jax.jit, static_argnames='inputs')
def average(
  x: types.Array,
  y: types.Array,
  sources: list[Pair],
  *,
  inputs: tuple[int, ...],
) -> types.Array:
  """Returns W_0: the mean of A and B where output units are merged.

  Args:
    x: A's leaf.
    y: B's leaf.
    sources: for each axis the indices into A and B; -1 for absent entries.
    inputs: the input axes. An entry is halved where its output is merged,
      whatever its input, because the target there is (y_A + y_B) / 2.

  Returns:
    The leaf of the new shape, in float32 or wider.
  """
  x, y = tree.wide(x), tree.wide(y)
  ones = jnp.ones([1] * x.ndim, x.dtype)
  of_a, of_b = ones, ones
  for axis, (a, b) in enumerate(sources):
    rest = [i for i in range(x.ndim) if i != axis]
    in_a, in_b = (
      jnp.expand_dims(index >= 0, rest).astype(x.dtype) for index in (a, b)
    )
    x = jnp.take(x, jnp.maximum(a, 0), axis) * in_a
    y = jnp.take(y, jnp.maximum(b, 0), axis) * in_b
    if axis not in inputs:
      of_a, of_b = of_a * in_a, of_b * in_b
  count = jnp.maximum(of_a + of_b, 1)
  return x * (of_a / count) + y * (of_b / count)


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
    start: W_0, from ``average``.
    matrix: joint Gram matrices, ``[groups, 2 d, 2 d]``.
    layout: the layout of the leaf.
    ridge: rho, in units of the mean square of an input.

  Returns:
    The leaf, like ``start``; NaN where the system is singular.
  """
  return _refit_groups(
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
    classes=_output_classes(layout),
  )


def _output_classes(
  layout: gram_layout.Layout,
) -> tuple[tuple[bool, bool], ...]:
  """Returns which kinds of outputs exist, as (in A, in B)."""
  groups, outputs = layout.groups, layout.outputs
  in_a = (groups.a >= 0)[:, None] & (outputs.a >= 0)[None, :]
  in_b = (groups.b >= 0)[:, None] & (outputs.b >= 0)[None, :]
  kinds = ((True, True), (True, False), (False, True))
  return tuple(k for k in kinds if ((in_a == k[0]) & (in_b == k[1])).any())


@functools.partial(jax.jit, static_argnames=('axes', 'sizes', 'classes'))
def _refit_groups(
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
  """Reshapes leaves to ``[groups, d, m]`` and solves group by group."""
  dtype = jnp.result_type(start.dtype, matrix.dtype)
  front = range(len(axes))
  a, b, first = (
    as_rows(jnp.moveaxis(x, axes, front), len(axes), count).astype(dtype)
    for x, count in zip((of_a, of_b, start), (*sizes, len(groups[0])))
  )
  matrix, ridge = matrix.astype(dtype), jnp.asarray(ridge, dtype)
  # Sequentially, to hold one system in memory: a depthwise convolution has as
  # many groups as channels.
  solved = jax.lax.map(
    lambda x: _solve_group(
      a, b, matrix, inputs, outputs, ridge, x[0], x[1], classes
    ),
    (first, groups),
  )
  moved = jnp.moveaxis(start, axes, front).shape
  flat = jnp.swapaxes(solved, 0, 1).reshape(moved)
  return jnp.moveaxis(flat, front, axes)


def as_rows(x: types.Array, inputs: int, groups: int) -> types.Array:
  """Reshapes a leaf, input axes first, to ``[groups, d, m]``."""
  d = math.prod(x.shape[:inputs])
  return jnp.swapaxes(x.reshape(d, groups, -1), 0, 1)


def _solve_group(
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
  """Returns W ``[d, m]`` of a group, by one system for each output class."""
  a, b = (x[jnp.maximum(g, 0)] for x, g in zip((of_a, of_b), group))
  joint = matrix[jnp.maximum(*group)]
  squares, cross_a, cross_b = _normal_equations(joint, a, b, group, inputs)
  in_a, in_b = (_exists(g, i) for g, i in zip(group, outputs))
  of_both = [_gather(cross_a, outputs[0], 1), _gather(cross_b, outputs[1], 1)]
  target = _average_or_copy(of_both, in_a, in_b, 1)
  residual = target - tree.matmul(squares, start)
  # An output of A alone uses the inputs that exist in A, of B alone those in B,
  # a merged output all inputs: W_0 is zero elsewhere, and stays zero.
  has_a, has_b = (_exists(g, i) for g, i in zip(group, inputs))
  rows = jnp.stack([(has_a & p) | (has_b & q) for p, q in classes])
  columns = jnp.stack([(in_a == p) & (in_b == q) for p, q in classes])
  solve = jax.vmap(_solve_ridge, (None, None, 0, None))
  steps = solve(squares, residual, rows, ridge)
  return start + jnp.where(columns[:, None], steps, 0).sum(0)


def _normal_equations(
  joint: types.Array,
  a: types.Array,
  b: types.Array,
  group: Pair,
  inputs: Pair,
) -> tuple[types.Array, types.Array, types.Array]:
  """Returns E[z z^T], E[z y_A^T] and E[z y_B^T] of a group."""
  d = len(joint) // 2
  in_a, in_b = (_exists(g, i) for g, i in zip(group, inputs))
  halves = lambda x, axis: [
    _gather(part, i, axis) for part, i in zip(jnp.split(x, 2, axis), inputs)
  ]
  z = _average_or_copy(halves(joint, 0), in_a, in_b, 0)
  return (
    _average_or_copy(halves(z, 1), in_a, in_b, 1),
    tree.matmul(z[:, :d], a),
    tree.matmul(z[:, d:], b),
  )


def _exists(group: types.Array, index: types.Array) -> types.Array:
  """Returns a mask of the entries of a group that exist in a model."""
  return (group >= 0) & (index >= 0)


def _gather(x: types.Array, index: types.Array, axis: int) -> types.Array:
  """Gathers entries; those that are absent give an arbitrary value."""
  return jnp.take(x, jnp.maximum(index, 0), axis)


def _average_or_copy(
  parts: list[types.Array], in_a: types.Array, in_b: types.Array, axis: int
) -> types.Array:
  """Returns the mean of two parts where an entry is in both, else the one."""
  # The matrix M of the module's docstring, applied along one axis.
  total = jnp.zeros_like(parts[0])
  for part, here, there in zip(parts, (in_a, in_b), (in_b, in_a)):
    share = jnp.where(here, jnp.where(there, 0.5, 1), 0).astype(part.dtype)
    total += part * jnp.expand_dims(share, 1 - axis)
  return total


def _solve_ridge(
  squares: types.Array,
  residual: types.Array,
  rows: types.Array,
  ridge: types.Array,
) -> types.Array:
  """Solves (squares + rho) W = residual on some rows; other rows are 0."""
  diagonal = jnp.where(rows, jnp.diagonal(squares), 0)
  count = jnp.maximum(rows.sum(), 1).astype(squares.dtype)
  mean = diagonal.sum() / count
  # If all inputs are zero so is the residual, and any rho > 0 gives W = 0.
  rho = jnp.where(mean > 0, ridge * mean, 1)
  # Other rows are those of the identity: a static shape, positive definite.
  pairs = rows[:, None] & rows[None]
  system = jnp.where(pairs, squares, 0) + jnp.diag(jnp.where(rows, rho, 1))
  factor = jax.scipy.linalg.cho_factor(system)
  return jax.scipy.linalg.cho_solve(
    factor, jnp.where(rows[:, None], residual, 0)
  )
