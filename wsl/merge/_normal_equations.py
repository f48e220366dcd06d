"""Least squares of linear maps by their normal equations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _stack
from wsl.merge._spectral import spread


def matrix_weighted(
  x: types.Array,
  matrix: types.Array,
  *,
  axes: tuple[int, ...],
  spec: spread.Spec = None,
) -> types.Array:
  """Averages by matrices ``[T, groups, d, d]`` on the input axes.

  The merged W minimises sum_t tr((W - W_t)^T G_t (W - W_t)), which is the sum
  of squared output errors of each map on its own inputs. Its gradient vanishes
  at the normal equations (sum_t G_t) W = sum_t G_t W_t, solved group by group.

  Args:
    x: a leaf, ``[T, ...]``.
    matrix: G_t, ``[T, groups, d, d]``.
    axes: the input axes of the leaf.
    spec: how the leaf is sharded; None if it is traced, or on one device.
  """
  wide = tree.wide(x)
  weight = matrix.astype(wide.dtype)
  # An input that is zero in all models leaves its row of W undetermined: a
  # unit weight for each model makes it their mean, and the system regular.
  diagonal = jnp.diagonal(weight, axis1=-2, axis2=-1)
  unseen = jnp.broadcast_to(_stack.sum_models(diagonal) == 0, diagonal.shape)
  eye = jnp.eye(weight.shape[-1], dtype=bool)[None, None]
  weight = jnp.where(unseen[..., None] & eye, 1, weight)
  rows = _as_rows(wide, matrix.shape[1], axes)
  if spread.devices(x) > 1:
    merged = _solve_by_columns(weight, rows, _outputs_first(spec, axes))
  else:
    weighted = _stack.sum_models(tree.matmul(weight, rows))
    merged = jnp.linalg.solve(_stack.sum_models(weight), weighted)
  merged = _from_rows(merged, x.shape[1:], axes).astype(x.dtype)
  return spread.restore(merged, spec, x.ndim)


def _solve_by_columns(
  weight: types.Array, rows: types.Array, spec: spread.Spec
) -> types.Array:
  """Solves the equations of ``[T, groups, d, n]`` for n / D columns by device.

  The columns of W are independent given the matrices, which all devices have.
  XLA would gather the leaf for the triangular systems; here columns are
  exchanged between pairs of devices (all-to-all).
  """
  mesh: Any = jax.typeof(rows).sharding.mesh
  parts, n = spread.devices(rows), rows.shape[3]
  rows = jnp.pad(rows, [(0, 0)] * 3 + [(0, -n % parts)])
  # The blocks are a batch axis, over which XLA partitions decompositions.
  blocks = rows.reshape(*rows.shape[:3], parts, -1)
  free = jax.sharding.PartitionSpec.UNCONSTRAINED
  names: tuple[str, ...] = ()
  for names in spread.steps(mesh, spec):
    blocks = spread.place(blocks, mesh, None, None, free, names, None)
  blocks = spread.place(blocks, mesh, None, None, None, names, None)
  blocks = jnp.moveaxis(blocks, 3, 1)
  # Matrices that are sharded are gathered one by one, as large as their sum.
  whole = [spread.place(w, mesh) for w in weight]
  weighted = [tree.matmul(w, x) for w, x in zip(whole, blocks)]
  total = spread.place(_stack.sum_models(weight), mesh)
  total = jnp.broadcast_to(total, (parts, *total.shape))
  total = spread.place(total, mesh, names)
  found = jnp.linalg.solve(total, _stack.sum_models(jnp.stack(weighted)))
  found = jnp.moveaxis(spread.place(found, mesh, names), 0, 2)
  return found.reshape(*found.shape[:2], -1)[..., :n]


def _outputs_first(spec: spread.Spec, axes: tuple[int, ...]) -> spread.Spec:
  """Lists how a leaf is sharded, output axes before the input axes."""
  if spec is None:
    return None
  inputs = [a + 1 for a in axes]
  order = [a for a in range(len(spec)) if a not in inputs] + inputs
  return jax.sharding.PartitionSpec(*[spec[a] for a in order if a < len(spec)])


def _as_rows(x: types.Array, groups: int, axes: tuple[int, ...]) -> types.Array:
  """Views ``[T, ...]`` as ``[T, groups, d, outputs per group]``."""
  front = [a + 1 for a in axes]
  d = int(np.prod([x.shape[a] for a in front]))
  x = jnp.moveaxis(x, front, range(1, len(front) + 1))
  return jnp.moveaxis(x.reshape(len(x), d, groups, -1), 2, 1)


def _from_rows(
  rows: types.Array, shape: tuple[int, ...], axes: tuple[int, ...]
) -> types.Array:
  """Inverts ``_as_rows`` for one merged ``[groups, d, outputs per group]``."""
  rest = [n for a, n in enumerate(shape) if a not in axes]
  front = [shape[a] for a in axes]
  x = jnp.moveaxis(rows, 0, 1).reshape(*front, *rest)
  return jnp.moveaxis(x, range(len(front)), axes)
