r"""Gain matrices of weight matching: the blocks of two models, contracted.

For a group c whose permutation depends on outer indices o, the gain of pairing
unit i of the fixed model with unit j of the moving model is

.. math:: S[o, i, j] = \sum_{\text{blocks}} \sum_r A[o, i, r]\, B[o, j, r],

where r runs over all other axes of a block. The agreement of the two models,
as a function of this group's permutation alone, is
:math:`\sum_{o, i} S[o, i, \pi_o(i)]`: a linear assignment problem for each o.
"""

import math
from typing import Any

import numpy as np

from wsl.align._match import block_pairs

_ROWS = 32  # of a product that are added at a time, or a sixteenth of them
_SHORT = 64  # contractions shorter than this are joined into one product


def gains(
  blocks: list[block_pairs.BlockPair],
  group: str,
  batch: block_pairs.Names,
  total: np.ndarray | None = None,
) -> np.ndarray:
  """Returns the gains of a group, added to a total.

  If the group has several axes in a block, the gains sum over these axes, with
  the other ones in their current order: they are the derivative of the
  agreement with respect to the group's permutation matrix.

  Args:
    blocks: pairs of blocks that have the group.
    group: the group to match.
    batch: the factors on which its permutation depends.
    total: ``[*batch, n, n]``, or ``None`` for zero; overwritten.

  Returns:
    The gains ``[*batch, n, n]``.
  """
  # <A, P B> = tr(A^T P B) = <P, A B^T>: with the group's axis as rows and all
  # other axes as columns, each block contributes A B^T to the gains. The other
  # axes of the moving block are permuted already, B = W_B Q^T, so that the sum
  # over leaves is sum W_A Q W_B^T (Git Re-Basin, section 3.2).
  pairs = []
  for block in blocks:
    for axis in block_pairs.axes_of(block.names, group):
      labels = unique_labels(block.names, axis)
      layout = (labels, batch, (group,))
      pairs.append(
        (as_matrices(block.fixed, *layout), as_matrices(block.moving, *layout))
      )
  # Biases and scales contribute outer products. One product of their
  # concatenation reads and writes the n x n gains once for all of them.
  short = [pair for pair in pairs if pair[0].shape[-1] < _SHORT]
  if len(short) > 1:
    pairs = [pair for pair in pairs if pair[0].shape[-1] >= _SHORT]
    xs, ys = zip(*short)
    pairs.append((np.concatenate(xs, axis=-1), np.concatenate(ys, axis=-1)))
  for x, y in pairs:
    total = multiply(x, y) if total is None else _add_product(total, x, y)
  assert total is not None  # there is at least one block
  return total


def _add_product(total: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Adds the products ``x y^T`` in place, some rows at a time."""
  x, y = _blas_layout(x), np.swapaxes(_blas_layout(y), -1, -2)
  n = total.shape[-1]
  length = n if total.ndim > 2 else max(_ROWS, n // 16)
  for start in range(0, n, length):
    rows = (..., slice(start, start + length), slice(None))
    total[rows] += np.matmul(x[rows], y)
  return total


def multiply(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns the products ``x y^T`` of matrices ``[*batch, rows, columns]``."""
  return np.matmul(_blas_layout(x), np.swapaxes(_blas_layout(y), -1, -2))


def as_matrices(
  x: np.ndarray,
  labels: block_pairs.Names,
  batch: block_pairs.Names,
  rows: block_pairs.Names,
) -> np.ndarray:
  """Reshapes a block to ``[*batch, prod(rows), rest]``."""
  rest = [label for label in labels if label not in (*batch, *rows)]
  y = x.transpose([labels.index(label) for label in (*batch, *rows, *rest)])
  sizes = y.shape[: len(batch) + len(rows)]
  count = math.prod(sizes[len(batch) :])
  return y.reshape(*sizes[: len(batch)], count, -1)


def unique_labels(names: block_pairs.Names, axis: int) -> block_pairs.Names:
  """Labels axes by factor; repeated factors elsewhere than ``axis`` differ."""
  return tuple(
    name if i == axis or names.count(name) == 1 else f'{name}@{i}'
    for i, name in enumerate(names)
  )


def agreement(
  blocks: list[block_pairs.BlockPair], batch: block_pairs.Names
) -> np.ndarray:
  """Returns the inner product of both models, float64 ``[*batch]``."""
  # In float32 the rounding of a sum of millions of products would exceed the
  # differences that ``tolerance`` compares.
  total: Any = 0.0
  for block in blocks:
    rest = [i for i, name in enumerate(block.names) if name not in batch]
    order = (*map(block.names.index, batch), *rest)
    part = (block.fixed * block.moving).transpose(order)
    axes = tuple(range(len(batch), part.ndim))
    total = total + part.sum(axes, dtype=np.float64)
  return np.asarray(total, np.float64)


def _blas_layout(x: np.ndarray) -> np.ndarray:
  """Copies matrices that are contiguous along neither rows nor columns."""
  if x.itemsize in x.strides[-2:]:
    return x
  return np.ascontiguousarray(x)
