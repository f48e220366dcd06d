"""The differences of all tensors, as lines of JSON."""

import json
import math
import pathlib
from typing import Any

import numpy as np

from experiments._compare_checkpoints import structure
from experiments._run import console
from wsl import stats


def measure(matched: structure.Pairs, file: pathlib.Path) -> dict[str, Any]:
  """Compares tensor by tensor, and writes a line as each is done.

  Returns:
    ``rows``: the lines, in the order of the layers.
  """
  rows = []
  each = stats.leaf_differences(matched.a, matched.b)
  with (
    file.open('w', encoding='utf-8') as out,
    console.progress('tensors', len(matched.a)) as tick,
  ):
    for name, found in each:
      row = _row(name, found, matched.a[name], matched.b[name])
      out.write(json.dumps(row, allow_nan=False) + '\n')
      out.flush()
      rows.append(row)
      tick(name)
  return {'rows': rows}


def _row(
  name: str, found: stats.LeafDifference, a: Any, b: Any
) -> dict[str, Any]:
  """Describes one tensor; None where a value is not finite or not defined."""
  bins = None
  if found.bins is not None:
    last = int(np.flatnonzero(found.bins).max(initial=0))
    bins = found.bins[: last + 1].tolist()
  return {
    'name': name,
    'shape': list(a.shape),
    'dtype': str(a.dtype),
    'dtype_b': str(b.dtype),
    'entries': found.entries,
    'differing': found.differing,
    'max_abs': _finite(found.max_abs),
    'max_rel': _finite(found.max_rel),
    'unordered': found.unordered,
    'max_ulps': found.max_ulps,
    'relative': _finite(found.relative),
    'distance': _finite(found.distance),
    'norm': found.norm,
    'bins': bins,
  }


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None


def worst(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Sorts the rows that differ, the largest relative norm first.

  Those with values that are not finite on one side come before all others.
  """

  def key(row: dict[str, Any]) -> tuple[float, float, int]:
    relative = math.inf if row['relative'] is None else row['relative']
    return -relative, -(row['max_ulps'] or 0), -row['differing']

  return sorted((row for row in rows if row['differing']), key=key)
