"""Given partitions of the entries of a leaf, by masks or numbers of cells."""

from typing import Any
import zlib

import numpy as np


class Members:
  """The cell of each entry of a leaf, hashed and compared by content.

  Attributes:
    cells: numbers of cells ``[...]``, of the smallest unsigned dtype.
    number: K, the number of cells.
  """

  def __init__(self, cells: np.ndarray, number: int) -> None:
    size = 8 if number <= 2**8 else 16 if number <= 2**16 else 32
    self.cells = cells.astype(f'uint{size}')
    self.number = number
    self._hash = hash((number, cells.shape, zlib.crc32(self.cells.tobytes())))

  def __hash__(self) -> int:
    return self._hash

  def __eq__(self, other: object) -> bool:
    return self is other or (
      isinstance(other, Members)
      and self.number == other.number
      and np.array_equal(self.cells, other.cells)
    )

  def __repr__(self) -> str:
    return f'Members({self.number} cells of {list(self.cells.shape)})'


def parse(label: str, given: Any, name: str, leaf: tuple[int, ...]) -> Members:
  """Reads masks ``[K, *leaf]``, bool, or numbers of cells ``[*leaf]``.

  Args:
    label: prefix of the error messages.
    given: the masks or the numbers.
    name: the leaf's name.
    leaf: its shape.

  Raises:
    ValueError: if the shape differs, or an entry is in no cell or in several.
  """
  found = np.asarray(given)
  if found.dtype == bool and found.shape[1:] == leaf and len(found):
    covered = found.sum(0)
    if (covered != 1).any():
      raise ValueError(
        f"{label}: masks of leaf '{name}': {int((covered != 1).sum())} entries "
        'are in no mask or in several, expected each in one'
      )
    return Members(found.argmax(0), len(found))
  whole = np.issubdtype(found.dtype, np.integer) and found.shape == leaf
  if not whole or (found < 0).any():
    raise ValueError(
      f"{label}: masks of leaf '{name}' are {found.dtype}{list(found.shape)}: "
      f'expected bool [K, *{list(leaf)}], or numbers from 0 of shape '
      f'{list(leaf)}'
    )
  return Members(found, int(found.max(initial=0)) + 1)
