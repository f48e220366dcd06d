r"""Gain matrices of weight matching: the blocks of two models, contracted.

For a group c whose permutation depends on outer indices o, the gain of pairing
unit i of the fixed model with unit j of the moving model is

.. math:: S[o, i, j] = \sum_{\text{blocks}} \sum_r A[o, i, r]\, B[o, j, r],

where r runs over all other axes of a block. The agreement of the two models,
as a function of this group's permutation alone, is
:math:`\sum_{o, i} S[o, i, \pi_o(i)]`: a linear assignment problem for each o.
"""

import functools
import math
from typing import Any

import numpy as np

from wsl.align._match import block_pairs
from wsl.align._solvers import row_blocks

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
    total = _add_product(total, x, y)
  assert total is not None  # there is at least one block
  return total


def _add_product(
  total: np.ndarray | None, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
  """Returns the products ``x y^T``, added to a total in place if possible."""
  if x.ndim > 2 or x.dtype != y.dtype:
    product = multiply(x, y)
    return product if total is None else np.add(total, product, out=total)
  from scipy import linalg

  # BLAS adds to matrices of columns in place: S^T <- S^T + y x^T. It is SciPy's
  # for all products: NumPy's has its own threads, which would wait beside.
  gemm = linalg.get_blas_funcs('gemm', (x,))
  (a, trans_a), (b, trans_b) = _columns(y), _columns(x)
  options: Any = {'trans_a': trans_a, 'trans_b': not trans_b}
  if total is not None:
    options |= {'c': total.T, 'beta': 1.0, 'overwrite_c': True}
  added: np.ndarray = gemm(1.0, a, b, **options).T
  if total is None or np.may_share_memory(added, total):
    return added
  total[...] = added  # other dtypes
  return total


def _columns(x: np.ndarray) -> tuple[np.ndarray, bool]:
  """Returns a matrix, or its transpose and True, in BLAS' order of columns."""
  if x.flags.f_contiguous:
    return x, False
  return np.ascontiguousarray(x).T, True


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
    sizes = [block.fixed.shape[i] for i in order[: len(batch)]]
    x, y = (
      v.transpose(order).reshape(math.prod(sizes), -1)
      for v in (block.fixed, block.moving)
    )
    part = row_blocks.run(
      functools.partial(_inner_products, x, y), x.shape[1], entries=len(x)
    )
    total = total + np.asarray(sum(part)).reshape(sizes)
  return np.asarray(total, np.float64)


def _inner_products(x: np.ndarray, y: np.ndarray, part: slice) -> np.ndarray:
  """Returns the inner products of rows, over some columns, in float64."""
  return np.asarray((x[:, part] * y[:, part]).sum(1, dtype=np.float64))


def _blas_layout(x: np.ndarray) -> np.ndarray:
  """Copies matrices that are contiguous along neither rows nor columns."""
  if x.itemsize in x.strides[-2:]:
    return x
  return np.ascontiguousarray(x)
