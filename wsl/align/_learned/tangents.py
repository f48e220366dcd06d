r"""Small steps in a gauge group: tangents at an element, and retractions.

A step multiplies the current table T of an action from the left,

.. math:: T \leftarrow \exp(X)\, T, \qquad
  T^{-\top} \leftarrow \exp(-X)^\top\, T^{-\top},

so it follows a geodesic from the current element, and tangents X of different
steps have the same coordinates: the moments of an optimizer carry over. X is
any matrix for a linear map, skew for a rotation, with X 1 = 0 where ones are
fixed, a number for each scale, and the logarithm of the modulus and the angle
for each phase. Only products of matrices are needed, no decompositions.
"""

import functools
import math
from typing import TypeAlias

import jax.numpy as jnp

from wsl import tree, types
from wsl.align import _symmetry
from wsl.align._gauges import complex_tables, elements

Tables: TypeAlias = dict[str, types.Array]

_HALVINGS = 4  # then the first term left out is at most 16^-9 / 9! = 4e-17


def is_matrix(action: _symmetry.Action) -> bool:
  """Returns True if an action mixes the indices of its factor."""
  return action.kind in ('rotation', 'linear')


def zeros(
  symmetry: _symmetry.Symmetry, name: str, table: types.Array
) -> types.Array:
  """Returns the tangent of no step."""
  return jnp.zeros(symmetry.action_shape(name), table.dtype)


def first_order(
  tables: Tables, steps: Tables, symmetry: _symmetry.Symmetry
) -> Tables:
  """Returns tables after infinitesimal steps: the derivative at 0 is exact.

  Args:
    tables: tables by name, with the duals of linear maps.
    steps: a tangent for each table to move.
    symmetry: the symmetry.
  """
  found = dict(tables)
  for name, x in steps.items():
    action, table = symmetry.action[name], tables[name]
    if action.kind == 'phase':
      found[name] = table + _turned(table, _log(x, action.unit))
      continue
    if not is_matrix(action):
      found[name] = table + table * x
      continue
    # exp(X) T = T + X T + O(X^2), and T^-T becomes exp(-X)^T T^-T.
    x = _generator(x, action.kind, action.ones)
    found[name] = table + tree.matmul(x, table)
    if action.kind == 'linear':
      key = elements.dual_of(name)
      change = tree.matmul(jnp.matrix_transpose(x), tables[key])
      found[key] = tables[key] - change
  return found


def retract(
  tables: Tables, steps: Tables, symmetry: _symmetry.Symmetry
) -> Tables:
  """Returns tables after steps of any size: elements of the group.

  A step changes a scale, or stretches a direction, by a factor of at most e,
  and turns a rotation or phase by at most one radian. Matrices of one size are
  moved together.

  Args:
    tables: tables by name, with the duals of linear maps.
    steps: a tangent for each table to move.
    symmetry: the symmetry.
  """
  found = dict(tables)
  alike: dict[tuple[str, bool, int], list[str]] = {}
  for name, x in steps.items():
    action = symmetry.action[name]
    if is_matrix(action):
      key = action.kind, action.ones, x.shape[-1]
      alike.setdefault(key, []).append(name)
    elif action.kind == 'phase':
      x = jnp.clip(_log(x, action.unit), -1, 1)
      angle = x[..., 1:]
      turn = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)
      found[name] = _turned(tables[name], jnp.exp(x[..., :1]) * turn)
    else:
      found[name] = tables[name] * jnp.exp(jnp.clip(x, -1, 1))
  for (kind, ones, n), names in alike.items():
    stack = functools.partial(_stack, names=names, n=n)
    x = _limited(_generator(stack(steps), kind, ones))
    table = tree.matmul(exponential(x), stack(tables))
    if kind == 'rotation':
      found |= _unstack(_orthogonal(table, ones), tables, names)
      continue
    # The series of exp(-X) is the inverse of that of exp(X) to rounding: no
    # linear system is solved.
    duals = [elements.dual_of(name) for name in names]
    back = jnp.matrix_transpose(exponential(-x))
    dual = tree.matmul(back, _stack(tables, duals, n))
    # Newton's method for T^T D = I: rounding errors of steps do not add up.
    residue = tree.matmul(jnp.matrix_transpose(table), dual)
    dual = 2 * dual - tree.matmul(dual, residue)
    found |= _unstack(table, tables, names) | _unstack(dual, tables, duals)
  return found


def exponential(x: types.Array) -> types.Array:
  r"""Returns exp(X) of matrices ``[..., n, n]`` of norm at most 1.

  .. math:: \exp(X) = \left(\sum_{k=0}^{8} (X / 16)^k / k! \right)^{16}
  """
  x = x / 2**_HALVINGS
  square = tree.matmul(x, x)
  cube = tree.matmul(square, x)
  one = jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)

  def three(k: int) -> types.Array:
    """Returns the terms k to k + 2 of the series, divided by X^k."""
    a, b, c = (1 / math.factorial(i) for i in range(k, k + 3))
    return a * one + b * x + c * square

  # Horner's rule in X^3.
  total = three(3) + tree.matmul(three(6), cube)
  total = three(0) + tree.matmul(total, cube)
  for _ in range(_HALVINGS):
    total = tree.matmul(total, total)
  return total


def _log(x: types.Array, unit: bool) -> types.Array:
  """Returns the logarithm of a phase; that of the modulus is 0 for units."""
  if not unit:
    return x
  return jnp.concatenate([jnp.zeros_like(x[..., :1]), x[..., 1:]], -1)


def _turned(table: types.Array, x: types.Array) -> types.Array:
  """Multiplies complex numbers."""
  return complex_tables.product(x, table, jnp)


def _generator(x: types.Array, kind: str, ones: bool) -> types.Array:
  """Projects matrices on the Lie algebra: skew, and zero on ones."""
  if kind == 'linear':
    return x
  x = (x - jnp.matrix_transpose(x)) / 2
  return _without_ones(x) if ones else x


def _without_ones(x: types.Array) -> types.Array:
  """Returns P X P with the projection P = I - 1 1^T / n."""
  x = x - jnp.mean(x, -1, keepdims=True)
  return x - jnp.mean(x, -2, keepdims=True)


def _limited(x: types.Array) -> types.Array:
  r"""Scales matrices to a spectral norm of at most 1.

  .. math:: \sigma_1^8 \le \sum_i \sigma_i^8 = \lVert (X^\top X)^2 \rVert_F^2

  is a polynomial, so its gradient at 0 is finite, and within n^(1/8) of the
  norm.
  """
  square = tree.matmul(jnp.matrix_transpose(x), x)
  eighth = jnp.sum(jnp.square(tree.matmul(square, square)), (-2, -1))
  size = jnp.maximum(eighth, 1) ** 0.125
  return x / size[..., None, None]


def _orthogonal(table: types.Array, ones: bool) -> types.Array:
  """Removes the rounding errors of a rotation, R (3 I - R^T R) / 2."""
  # One step of Newton-Schulz for the polar factor: an error E of R^T R - I
  # becomes 3 E^2 / 4. On ones the rotation is the identity, 1 1^T / n.
  if ones:
    table = _without_ones(table) + 1 / table.shape[-1]
  gram = tree.matmul(jnp.matrix_transpose(table), table)
  return 1.5 * table - tree.matmul(table, gram) / 2


def _stack(tables: Tables, names: list[str], n: int) -> types.Array:
  """Stacks matrices, ``[many, n, n]``."""
  return jnp.concatenate([tables[name].reshape(-1, n, n) for name in names])


def _unstack(stacked: types.Array, like: Tables, names: list[str]) -> Tables:
  """Splits stacked matrices into tables of the former shapes."""
  found, at = {}, 0
  for name in names:
    shape = like[name].shape
    many = math.prod(shape[:-2])
    found[name] = stacked[at : at + many].reshape(shape)
    at += many
  return found
