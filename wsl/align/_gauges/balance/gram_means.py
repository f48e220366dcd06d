"""Balanced linear maps: geometric means of Gram matrices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsl.align import _symmetry
from wsl.align._gauges import elements
from wsl.align._gauges.balance import pieces as pieces_lib

RANK = 1e-7  # relative size of singular values that count as zero


def unsolvable(
  action: _symmetry.Action, pieces: Sequence[pieces_lib.Piece]
) -> str:
  """Returns why a linear map has no balanced form; ``''`` if it has one."""
  for piece in pieces:
    mine = [a for a in piece.acts if a.name == action.name]
    if len(mine) > 1:
      return f"it acts twice on leaf '{piece.leaf}'"
  for sign in (1, -1):
    both = [p for p in pieces if _acts(p, action.name, sign)]
    if not both:
      continue
    if dependent(_gram(both, action.name, sign, {})):
      names = ', '.join(dict.fromkeys(repr(p.leaf) for p in both))
      return f'the units of a head are linearly dependent in {names}'
  return ''


def dependent(gram: Any, tolerance: float = RANK) -> bool:
  """Returns True if Gram matrices ``[..., n, n]`` are singular.

  Args:
    gram: the matrices; None for none.
    tolerance: relative size of singular values of vectors that count as zero.
  """
  if gram is None:
    return False
  s = np.sqrt(np.abs(np.linalg.eigvalsh(gram)))
  return bool((s[..., 0] <= tolerance * s[..., -1]).any())


def update(
  pieces: Sequence[pieces_lib.Piece],
  symmetry: _symmetry.Symmetry,
  name: str,
  tables: dict[str, Any],
) -> float:
  r"""Balances a linear map A, given all other tables.

  .. math:: \min_A \mathrm{tr}(A G A^\top) + \mathrm{tr}(A^{-\top} H A^{-1})

  has the solutions with :math:`A^\top A = G^{-1} \# H`; the symmetric one is
  taken. Without covectors (or vectors) there is no minimum, and the Gram matrix
  becomes the identity.

  Args:
    pieces: the blocks of a model, see ``pieces.Piece``.
    symmetry: its symmetry.
    name: the action.
    tables: of all actions; that of ``name`` is replaced.

  Returns:
    The largest change of an entry, relative to the largest entry.
  """
  others = elements.with_duals(
    symmetry, {n: x for n, x in tables.items() if n != name}, np
  )
  grams = []
  for sign in (1, -1):
    mine = [p for p in pieces if _acts(p, name, sign)]
    grams.append(_gram(mine, name, sign, others) if mine else None)
  before = tables[name]
  tables[name] = found = root(*grams)
  return float(np.abs(found - before).max() / np.abs(before).max())


def _acts(piece: pieces_lib.Piece, name: str, sign: int) -> bool:
  """Returns True if an action acts on a block with a sign of the power."""
  return any(a.name == name and a.power * sign > 0 for a in piece.acts)


def _gram(
  pieces: Sequence[pieces_lib.Piece],
  name: str,
  sign: int,
  tables: dict[str, Any],
) -> np.ndarray:
  """Returns the Gram matrices ``[*outer, n, n]`` of an axis in some blocks."""
  total: Any = 0.0
  for piece in pieces:
    others = tuple(a for a in piece.acts if a.name in tables)
    block = piece.block.astype(np.float64)
    block = elements.act(block, piece.factors, others, tables, np)
    for act in piece.acts:
      if act.name == name and act.power * sign > 0:
        axes = elements.axes_of(act, piece.factors)
        front = np.moveaxis(block, axes, range(len(axes)))
        x = front.reshape(*front.shape[: len(axes)], -1)
        total = total + x @ np.swapaxes(x, -1, -2)
  return np.asarray(total)


def root(vectors: Any, covectors: Any) -> np.ndarray:
  """Returns the symmetric root of G^-1 # H, of G^-1, or of H.

  Args:
    vectors: the Gram matrices G of vectors ``[..., n, n]``, or None.
    covectors: those of covectors, H, or None; not both.
  """
  # With G = L L^T and M = L^T H L, the mean is L^-T M^(1/2) L^-1, and
  # B = M^(1/4) L^-1 has B^T B equal to it. The symmetric root is the second
  # factor of the polar decomposition of B.
  if vectors is None:
    chol = np.linalg.cholesky(covectors)
    b = np.swapaxes(chol, -1, -2)
  else:
    chol = np.linalg.cholesky(vectors)
    b = np.linalg.inv(chol)
    if covectors is not None:
      m = np.swapaxes(chol, -1, -2) @ covectors @ chol
      s, u = np.linalg.eigh((m + np.swapaxes(m, -1, -2)) / 2)
      fourth = (u * np.abs(s)[..., None, :] ** 0.25) @ np.swapaxes(u, -1, -2)
      b = fourth @ b
  _, s, vt = np.linalg.svd(b)
  return np.swapaxes(vt, -1, -2) @ (s[..., None] * vt)
