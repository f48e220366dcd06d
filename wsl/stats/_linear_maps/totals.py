"""Sums of each leaf's statistic over batches."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from wsl import batches as batches_lib

_Statistic = TypeVar('_Statistic')


def over_batches(
  of_batch: Callable[[Any], list[_Statistic | None]],
  batches: Iterable[Any],
  *,
  add: Callable[[_Statistic, _Statistic], _Statistic],
  name: str,
) -> list[_Statistic | None]:
  """Adds up the statistics of batches, leaf by leaf.

  Args:
    of_batch: maps the inputs of a batch to a statistic for each leaf, ``None``
      at leaves that have none.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``.
    add: combines the statistics of two sets of rows.
    name: the public function to name in error messages.

  Returns:
    For each leaf the statistic of all rows, or ``None`` if a batch has none.
  """
  total: list[_Statistic | None] = []
  for batch in batches_lib.stream(batches, name=name):
    part = of_batch(batches_lib.inputs_of(batch))
    if total:
      part = [
        None if a is None or b is None else add(a, b)
        for a, b in zip(total, part)
      ]
    total = part
  return total
