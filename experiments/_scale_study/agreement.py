"""Are the bytes and exchanges of a formula those of the compiled program?

Peaks are upper bounds: XLA reuses buffers of searches and decompositions.
"""

from collections.abc import Sequence
from typing import Any

# Programs without loops: each byte that is read is in the text once. Those that
# decompose or solve keep copies which XLA chooses, and searches have loops.
_STRAIGHT = {
  *('mean', 'task arithmetic', 'slerp', 'fisher', 'dare', 'gains'),
}

# The greatest relative differences that are accepted.
TOLERANCES = {
  'arguments': 0.0,
  'results': 0.0,
  'memory': 0.02,
  'link': 0.1,
  'peak above': 0.05,
  'peak below': 0.4,
}
# Bytes that are not predicted: tables of pointers, scalars, buffers of sorts.
_SCRATCH = {
  'results': 2**8,
  'memory': 2**12,
  'link': 2**9,
  'peak above': 2**22,
}


def differences(row: dict[str, Any]) -> dict[str, float]:
  """Returns the relative difference of each quantity that is predicted.

  Args:
    row: of ``measure.on``.

  Returns:
    By quantity |counted - expected| / expected: the bytes of arguments and
    results; the bytes of memory, for programs without loops; the bytes sent to
    other devices; and by how much the peak is above and below the formula's.
  """
  expected, counted = row['expected'], row['counted']
  pairs = {q: (expected[q], counted[q]) for q in ('arguments', 'results')}
  if row['operation'] in _STRAIGHT:
    pairs['memory'] = expected['memory'], counted['memory']
  pairs['link'] = expected['link'], counted['link']
  found = {q: _relative(q, *pair) for q, pair in pairs.items()}
  keys = ('arguments', 'results', 'temporaries')
  wanted, peak = (sum(x[k] for k in keys) for x in (expected, counted))
  found['peak above'] = _relative('peak above', wanted, max(peak, wanted))
  found['peak below'] = _relative('peak below', wanted, min(peak, wanted))
  return found


def judge(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Returns the worst difference of each quantity, and whether it is accepted.

  Args:
    rows: of ``measure.on``.

  Returns:
    By quantity ``worst``, ``operation`` and ``devices`` of the worst,
    ``tolerance`` and ``holds``.
  """
  claims: dict[str, Any] = {}
  for row in rows:
    for quantity, worst in differences(row).items():
      if worst >= claims.get(quantity, {'worst': -1})['worst']:
        claims[quantity] = {
          'worst': worst,
          'operation': row['operation'],
          'devices': row['devices'],
          'tolerance': TOLERANCES[quantity],
          'holds': worst <= TOLERANCES[quantity],
        }
  return claims


def _relative(quantity: str, wanted: float, found: float) -> float:
  """The difference beyond the scratch space, relative to the formula's."""
  beyond = max(abs(found - wanted) - _SCRATCH.get(quantity, 0), 0)
  return beyond / max(wanted, 1)
