"""Contractions of labelled arrays, each as one batched matrix product.

Axis i of a block has the label i in the fixed model and ~i in the moving one.
"""

import math
from typing import TypeAlias

import numpy as np

_SPARSE = 0.1  # the share of positive entries below which a matrix is sparse

Labels: TypeAlias = tuple[int, ...]


def contract(
  x: np.ndarray, on_x: Labels, y: np.ndarray, on_y: Labels, out: Labels
) -> np.ndarray:
  """Multiplies two arrays; sums over all labels that ``out`` does not have.

  Args:
    x: the first array.
    on_x: the labels of its axes, all different.
    y: the second array.
    on_y: the labels of its axes.
    out: the labels of the result, each a label of ``x`` or ``y``.

  Returns:
    The product, its axes in the order of ``out``.
  """
  x, on_x = sum_to(x, on_x, tuple(n for n in on_x if n in on_y or n in out))
  y, on_y = sum_to(y, on_y, tuple(n for n in on_y if n in on_x or n in out))
  batch = tuple(n for n in on_x if n in on_y and n in out)
  summed = tuple(n for n in on_x if n in on_y and n not in out)
  rows = tuple(n for n in on_x if n not in on_y)
  columns = tuple(n for n in on_y if n not in on_x)
  sizes = dict(zip(on_x, x.shape)) | dict(zip(on_y, y.shape))
  left = _as_matrices(x, on_x, batch, rows, summed)
  right = _as_matrices(y, on_y, batch, summed, columns)
  labels = (*batch, *rows, *columns)
  product = np.matmul(left, right).reshape([sizes[n] for n in labels])
  return product.transpose([labels.index(n) for n in out])


def multiply(matrix: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
  """Multiplies one axis of an array by a matrix ``[n, m]``, sparse or not."""
  from scipy import sparse

  front = np.moveaxis(x, axis, 0)
  flat = front.reshape(len(front), -1)
  # A vertex of the transport polytope has less than n + m positive entries.
  if np.count_nonzero(matrix) < _SPARSE * matrix.size:
    product = sparse.csr_array(matrix) @ flat
  else:
    product = matrix @ flat
  return np.moveaxis(product.reshape(-1, *front.shape[1:]), 0, axis)


def sum_to(
  x: np.ndarray, labels: Labels, kept: Labels
) -> tuple[np.ndarray, Labels]:
  """Sums over the axes whose labels are not kept."""
  axes = tuple(i for i, n in enumerate(labels) if n not in kept)
  left = tuple(n for n in labels if n in kept)
  return (x.sum(axes) if axes else x), left


def _as_matrices(
  x: np.ndarray, labels: Labels, batch: Labels, rows: Labels, columns: Labels
) -> np.ndarray:
  """Reshapes an array to ``[*batch, prod(rows), prod(columns)]``."""
  x = x.transpose([labels.index(n) for n in (*batch, *rows, *columns)])
  ends = len(batch), len(batch) + len(rows)
  shape = x.shape[: ends[0]], x.shape[ends[0] : ends[1]], x.shape[ends[1] :]
  return x.reshape(*shape[0], math.prod(shape[1]), math.prod(shape[2]))
