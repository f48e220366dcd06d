"""The sizes that a file states: what no array and no checkpoint has."""

from collections.abc import Sequence

_MOST_AXES = 64  # of an array of NumPy
_MOST_VALUES = 2_000_000
_LARGE = 1 << 30
_MOST_TIMES = 500


def check_shape(shape: Sequence[int], itemsize: int) -> None:
  """Checks that NumPy has arrays of a shape; takes a time that is bounded.

  Raises:
    ValueError: if there are too many axes, or too many bytes, where an axis
      without entries counts as one.
  """
  if len(shape) > _MOST_AXES:
    raise ValueError(f'an array has {len(shape)} axes')
  size = itemsize
  for n in shape:
    size *= max(n, 1)
  if size >= 1 << 63:
    raise ValueError('the size of an array is beyond 64 bits')


def check_count(values: int) -> None:
  """Checks the number of values beside arrays, each of which takes time.

  Raises:
    ValueError: if there are more than two million.
  """
  if values > _MOST_VALUES:
    raise ValueError(f'it holds more than {_MOST_VALUES} values')


def is_bomb(nbytes: int, stored: int) -> bool:
  """Returns True for bytes that unfold to a gigabyte of nearly nothing."""
  return nbytes > _LARGE and nbytes > _MOST_TIMES * stored
