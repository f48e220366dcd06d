"""The table of the rounds, and what is expected of them."""

from collections.abc import Callable, Mapping, Sequence
import statistics
from typing import Any

Run = Mapping[str, float]
# One round of one method: who ran, and what was measured.
Round = Mapping[str, Run]
# At least so much faster than mergekit, in at most so much of its memory, and
# in at most so many times of the floor.
_EXPECTED: dict[str, dict[str, float]] = {
  'linear': {'faster': 5, 'memory': 4, 'over_floor': 1.6},
  'task_arithmetic': {'faster': 5, 'memory': 4, 'over_floor': 1.6},
  'slerp': {'faster': 5},
  'ties_leaf': {'faster': 12, 'memory': 3},
  'dare_linear': {'faster': 5, 'memory': 2},
  'dare_ties': {'faster': 5, 'memory': 2},
}
_AT_MOST = ('over_floor', 'over_ties_leaf')
_GLOBAL = 1.5  # times the seconds of TIES for each tensor
_PLANNED = 0.15
_COLUMNS = {
  'method': 15, 'pairs': 5, 'wsl_seconds': 7, 'mergekit_seconds': 8,
  'faster': 12, 'wsl_mib': 7, 'mergekit_mib': 8, 'memory': 11,
  'over_floor': 12, 'planned': 10,
}  # fmt: skip
_TITLES = {
  'wsl_seconds': 'wsl s', 'mergekit_seconds': 'mergekit', 'wsl_mib': 'wsl MiB',
  'mergekit_mib': 'mergekit', 'memory': 'less memory',
}  # fmt: skip


def row(method: str, rounds: Sequence[Round]) -> dict[str, Any]:
  """Returns the medians of the rounds of one method."""
  found: dict[str, Any] = {'method': method}
  pairs = [r for r in rounds if 'mergekit' in r]
  found['pairs'] = len(pairs)
  for who in ('import', 'floor', 'wsl', 'mergekit'):
    for unit in ('seconds', 'mib', 'cpu'):
      key = f'{who}_{unit}'
      found[key] = _median(rounds, lambda r, w=who, u=unit: r[w][u])
  spent = lambda r: r['wsl']['seconds'] - r['import']['seconds']
  found['over_floor'] = _median(
    rounds, lambda r: spent(r) / r['floor']['seconds']
  )
  found['planned'] = _median(
    rounds, lambda r: r['wsl']['planned'] / r['wsl']['mib']
  )
  ratio = lambda unit: lambda r: r['mergekit'][unit] / r['wsl'][unit]
  found['faster'] = _median(pairs, ratio('seconds'))
  found['memory'] = _median(pairs, ratio('mib'))
  return found


def _median(
  rounds: Sequence[Round], value: Callable[[Round], float]
) -> float | None:
  """Returns the median over the rounds that have the value."""
  values = []
  for each in rounds:
    try:
      values.append(value(each))
    except KeyError:
      continue
  return round(statistics.median(values), 2) if values else None


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns the rows as a table; a value that misses is marked by ``!``."""
  head = ' '.join(
    f'{_TITLES.get(name, name):>{width}}' for name, width in _COLUMNS.items()
  )
  lines = [head, '-' * len(head)]
  missed = []
  for each in rows:
    misses = _misses(each, rows)
    cells = [
      f'{_cell(each, name, misses):>{width}}'
      for name, width in _COLUMNS.items()
    ]
    lines.append(' '.join(cells))
    missed += [f'{each["method"]}: {text}' for text in misses.values()]
  lines += ['', *(f'MISS {text}' for text in missed)]
  return '\n'.join(lines if missed else [*lines, 'PASS: all as expected'])


def _cell(each: Mapping[str, Any], name: str, misses: Mapping[str, str]) -> str:
  """Returns a value, what is expected of it, and a mark if it misses."""
  value = each.get(name)
  if value is None:
    return '-'
  wanted = _EXPECTED.get(each['method'], {}).get(name)
  text = f'{value:.0f}' if name.endswith('mib') else str(value)
  if wanted is not None:
    text += f' ({"<" if name in _AT_MOST else ">"}{wanted:g})'
  return text + ('!' if name in misses else '')


def _misses(
  each: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
  """Returns what is not as expected of a row, by column."""
  found = {}
  for name, wanted in _EXPECTED.get(each['method'], {}).items():
    value = each[name]
    sign = -1 if name in _AT_MOST else 1
    if value is not None and sign * value < sign * wanted:
      found[name] = f'{name} is {value}, expected {wanted:g}'
  planned = each['planned']
  if planned is not None and abs(planned - 1) > _PLANNED:
    found['planned'] = f'planned / used memory is {planned}'
  leaf = next((x for x in rows if x['method'] == 'ties_leaf'), None)
  if each['method'] == 'ties_global' and leaf is not None:
    times = each['wsl_seconds'] / leaf['wsl_seconds']
    if times > _GLOBAL:
      found['wsl_seconds'] = (
        f'{times:.2f} times that for each tensor, expected {_GLOBAL}'
      )
  return found
