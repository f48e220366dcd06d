"""Writes one leaf in chunks: cast, checked, written while in the cache."""

from collections.abc import Callable
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np

from wsl import tree

Report: TypeAlias = Callable[[str, int], None]
_CHUNK = 1 << 20


class Writer(NamedTuple):
  """Writes leaves chunk by chunk, each after a check of its values."""

  report: Report
  check_finite: bool

  def write(self, out: BinaryIO, name: str, value: np.ndarray) -> None:
    """Writes one leaf.

    Raises:
      ValueError: if a value is not finite, naming the leaf.
    """
    flat = value.reshape(-1)
    step = max(_CHUNK // value.itemsize, 1)
    for start in range(0, flat.size, step):
      chunk = flat[start : start + step]
      if self.check_finite and not tree.all_finite(chunk):
        raise ValueError(
          f"save: leaf '{name}' of {value.dtype} has values that are NaN or "
          'infinite: was the result beyond its dtype? give dtype=, or '
          'check_finite=False'
        )
      write_all(out, chunk.view(np.uint8))
    self.report(name, value.nbytes)


def write_all(out: BinaryIO, data: np.ndarray) -> None:
  """Writes all bytes; an unbuffered write may take fewer than given."""
  view = data.data
  while view:
    view = view[out.write(view) :]
