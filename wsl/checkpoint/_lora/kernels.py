r"""Task vectors of one leaf: products of factors, DoRA, replaced weights.

A LoRA adds :math:`s B A`, a matrix ``[out, in]`` that is laid out like the
weight: as it is for a linear map ``[out, in]`` and a convolution
``[out, in, *window]``, transposed for an embedding ``[tokens, out]`` and for a
linear map ``[in, out]``. DoRA then scales every output to a learned norm.
"""

import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def product(
  first: types.Array,
  second: types.Array,
  *,
  scale: types.Scalar,
  transposed: bool,
  shape: tuple[int, ...],
  dtype: np.dtype,
) -> types.Array:
  """Returns s B A, laid out in the shape of the weight.

  Args:
    first: A, ``[r, in, *window]``; windows are columns.
    second: B, ``[out, r, *ones]``.
    scale: the factor s.
    transposed: whether the weight is ``[in, out]``.
    shape: the weight's shape.
    dtype: the dtype to compute in.
  """
  rank = first.shape[0]
  rows = first.reshape(rank, -1).astype(dtype)
  columns = second.reshape(-1, rank).astype(dtype)
  matrix = tree.matmul(columns, rows)
  matrix = matrix.T if transposed else matrix
  return jnp.asarray(scale).astype(dtype) * matrix.reshape(shape)


def dora(
  base: types.Array,
  first: types.Array,
  second: types.Array,
  magnitude: types.Array,
  *,
  scale: types.Scalar,
  transposed: bool,
  dtype: np.dtype,
) -> types.Array:
  r"""Returns the task vector of DoRA.

  .. math:: m \frac{W + s B A}{\lVert W + s B A \rVert} - W

  The norm is over all axes but that of the outputs.
  """
  added = product(
    first,
    second,
    scale=scale,
    transposed=transposed,
    shape=base.shape,
    dtype=dtype,
  )
  start = base.astype(dtype)
  moved = start + added
  axis = 1 if transposed else 0
  others = tuple(i for i in range(base.ndim) if i != axis)
  norms = jnp.sqrt(jnp.sum(jnp.square(moved), others, keepdims=True))
  sizes = [1] * base.ndim
  sizes[axis] = -1
  wanted = magnitude.astype(dtype).reshape(sizes)
  # An output without weights has no direction: its norm has no effect.
  gain = jnp.where(norms > 0, wanted / jnp.where(norms > 0, norms, 1), 1)
  return gain * moved - start


def difference(base: types.Array, other: types.Array) -> types.Array:
  """Returns the task vector of a replaced weight."""
  wide = tree.wide_dtype(base, other)
  return other.astype(wide) - base.astype(wide)


def replaced_rows(
  base: types.Array, rows: types.Array, *, index: types.Array
) -> types.Array:
  """Returns the task vector of an embedding some of whose rows are replaced."""
  wide = tree.wide_dtype(base, rows)
  moved = rows.astype(wide) - base[index].astype(wide)
  return jnp.zeros(base.shape, wide).at[index].set(moved)


def scaled(
  bias: types.Array, *, scale: types.Scalar, dtype: np.dtype
) -> types.Array:
  """Returns the task vector of a bias to which a LoRA adds its own."""
  return jnp.asarray(scale).astype(dtype) * bias.astype(dtype)


def stack(
  *deltas: types.Array, places: tuple[int, ...], count: int
) -> types.Array:
  """Stacks the task vectors of some of ``count`` models, zeros for the rest."""
  rows = [jnp.zeros_like(deltas[0])] * count
  for place, delta in zip(places, deltas):
    rows[place] = delta
  return jnp.stack(rows)


def is_transposed(
  base: tuple[int, ...],
  first: tuple[int, ...],
  second: tuple[int, ...],
  default: bool,
) -> bool | None:
  """Returns whether the product is laid out transposed; None if neither fits.

  Args:
    base: the shape of the weight.
    first: the shape of A, ``[r, in, *window]``.
    second: the shape of B, ``[out, r, *ones]``.
    default: the answer for a square matrix.
  """
  rank = first[0]
  if int(np.prod(second[1:], dtype=np.int64)) != rank:
    return None
  fits = base == (second[0], *first[1:])
  turned = len(base) == 2 and base == (*first[1:], second[0])
  if fits and turned:
    return default
  return turned if fits or turned else None
