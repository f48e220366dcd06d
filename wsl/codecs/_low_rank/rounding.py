r"""Rounding of a matrix to few bits, plain or with compensation of errors.

For outputs W x the rounding error counts as :math:`\operatorname{tr} E H
E^\top` with :math:`E = \hat W - W` and :math:`H = \mathrm{E}\, x x^\top`.
Columns are rounded in order. When column j has the error :math:`e_j`, the best
change of the columns after it, with all before it fixed, is

.. math:: \Delta W_{:,>j} = - \frac{e_j}{U_{jj}} U_{j,>j}, \qquad
  H^{-1} = U^\top U, \; U \text{ upper triangular}

(OBQ; one factorisation serves all columns, as in GPTQ).

Reference:
  Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative
  Pre-trained Transformers", 2022, arXiv:2210.17323, equations 2 and 3.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from wsl.codecs._low_rank import codes as codes_lib

# Returns the codes and the levels of a column.
Column: TypeAlias = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]
# Added to the diagonal of H, as a part of its mean (GPTQ's default).
_DAMP = 0.01
# Columns after which the columns behind are changed by one product.
_LAZY = 128


def rows(
  w: np.ndarray, bits: np.ndarray, run: int, gram: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Rounds the rows of a matrix, each to its number of bits.

  Args:
    w: ``[vectors, length]``, float64.
    bits: of each row.
    run: the consecutive entries of a row that share a step.
    gram: H of the inputs, ``[length, length]``; None rounds to the nearest.

  Returns:
    Codes ``[vectors, length]`` and steps ``[vectors, ceil(length / run)]``.
  """
  length = w.shape[1]
  starts = range(0, length, run)
  if gram is None:
    parts = [w[:, at : at + run] for at in starts]
    steps = np.stack([codes_lib.best_steps(part, bits) for part in parts], 1)
    each = np.repeat(steps, run, axis=1)[:, :length]
    return codes_lib.nearest(w, each, bits[:, None]), steps
  found: list[np.ndarray] = []

  def column(j: int, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if j % run == 0:
      found.append(codes_lib.best_steps(rest[:, :run], bits))
    codes = codes_lib.nearest(rest[:, 0], found[-1], bits)
    return codes, codes_lib.levels(codes, found[-1], bits)

  codes = _compensated(w, gram, column, run)
  return codes, np.stack(found, 1)


def columns(
  w: np.ndarray, bits: np.ndarray, run: int, gram: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Rounds the columns of a matrix, each to its number of bits.

  As ``rows`` of the transposed matrix, but ``gram [vectors, vectors]`` is that
  of what the columns multiply: the error of a column is compensated by those
  after it.
  """
  if gram is None:
    return rows(w.T, bits, run, None)
  found: list[np.ndarray] = []
  length = w.shape[0]

  def column(j: int, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = rest[:, 0]
    parts = [values[at : at + run] for at in range(0, length, run)]
    steps = np.stack([codes_lib.best_steps(part, bits[j]) for part in parts])
    found.append(steps)
    each = np.repeat(steps, run)[:length]
    codes = codes_lib.nearest(values, each, bits[j])
    return codes, codes_lib.levels(codes, each, bits[j])

  codes = _compensated(w, gram, column, 1)
  return codes.T, np.stack(found)


def _compensated(
  w: np.ndarray, gram: np.ndarray, column: Column, run: int
) -> np.ndarray:
  """Rounds column by column, and changes the columns behind.

  ``column(j, rest)`` returns codes and levels of column j, the first of
  ``rest``, which has the changes of all columns before it for ``run`` columns.
  """
  upper = _inverse_root(gram)
  w = w.copy()
  codes = np.zeros(w.shape, int)
  width = max(run, _LAZY - _LAZY % run)
  for start in range(0, w.shape[1], width):
    stop = min(start + width, w.shape[1])
    errors = np.zeros((w.shape[0], stop - start))
    for j in range(start, stop):
      codes[:, j], values = column(j, w[:, j:stop])
      error = (w[:, j] - values) / upper[j, j]
      w[:, j + 1 : stop] -= np.outer(error, upper[j, j + 1 : stop])
      errors[:, j - start] = error
    w[:, stop:] -= errors @ upper[start:stop, stop:]
  return codes


def _inverse_root(gram: np.ndarray) -> np.ndarray:
  """Returns upper triangular U with U^T U the inverse of the damped matrix."""
  damp = _DAMP * np.mean(np.diag(gram)) or 1.0
  damped = gram + damp * np.eye(len(gram))
  return np.linalg.cholesky(np.linalg.inv(damped)).T
