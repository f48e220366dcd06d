"""The results of the study, and its claims."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments._scale_study import agreement

# A formula without fitted constants is useful to this factor.
FACTOR = 2.0


def summarise(
  found: Mapping[int, dict[str, Any]],
  streamed: Sequence[dict[str, Any]],
  paper: Sequence[dict[str, Any]],
  checked: Sequence[dict[str, Any]],
) -> dict[str, Any]:
  """Collects the measurements and judges the claims.

  Args:
    found: from ``measure.on`` for each number of devices.
    streamed: from ``disk.measure``.
    paper: from ``pods.on_paper``.
    checked: from ``pods.compile_all``.

  Returns:
    ``rows`` of all devices, ``machines`` by devices, ``claims``, and the other
    arguments by name.
  """
  rows = [row for part in found.values() for row in part['rows']]
  return {
    'rows': rows,
    'machines': {
      str(d): part['machine'] for d, part in found.items() if part['machine']
    },
    'claims': _claims(rows, streamed),
    'disk': list(streamed),
    'pod': list(paper),
    'compiled': list(checked),
  }


def largest(rows: Sequence[dict[str, Any]], devices: int) -> list[Any]:
  """Returns the rows of the largest model on a number of devices."""
  mine = [row for row in rows if row['devices'] == devices]
  most = max(row['leaves'] for row in mine)
  return [row for row in mine if row['leaves'] == most]


def ratio(row: dict[str, Any]) -> float | None:
  """Returns the measured over the predicted time, None if not measured."""
  return row['seconds'] and row['seconds'] / row['predicted']


def _claims(
  rows: Sequence[dict[str, Any]], streamed: Sequence[dict[str, Any]]
) -> dict[str, Any]:
  """Judges the bytes of programs and files, and the times."""
  claims: dict[str, Any] = {
    f'bytes: {quantity}': claim
    for quantity, claim in agreement.judge(rows).items()
  }
  off = [
    abs(row['bytes_in']['plan'] / row['bytes_in']['formula'] - 1)
    for row in streamed
  ]
  claims['bytes: read from files'] = {
    'worst': max(off),
    'tolerance': 0.05,
    'holds': max(off) <= 0.05,
  }
  for devices in sorted({row['devices'] for row in rows}):
    for bound in ('memory', 'others'):
      mine = {
        row['operation']: ratio(row)
        for row in largest(rows, devices)
        if (row['bound'] == 'memory') == (bound == 'memory')
      }
      known = {name: x for name, x in mine.items() if x}
      if known:
        claims[f'time, {devices} devices, bound by {bound}'] = _factors(known)
  return claims


def _factors(ratios: Mapping[str, float]) -> dict[str, Any]:
  """Judges whether measured and predicted times are within a factor."""
  factors = {name: max(x, 1 / x) for name, x in ratios.items()}
  within = sum(x <= FACTOR for x in factors.values())
  return {
    'worst': max(factors.values()),
    'operation': max(factors, key=lambda name: factors[name]),
    'median': float(np.median([*ratios.values()])),
    'within': within,
    'of': len(factors),
    'holds': within == len(factors),
  }
