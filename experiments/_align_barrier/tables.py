"""From paths to the lines of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._run import console

TITLES = {
  'naive': 'as it is',
  'random': 'control: at random',
  'weight_matching': 'weight matching',
  'activation_matching': 'activation matching',
  'straight_through': 'straight-through',
  'sinkhorn': 'Sinkhorn',
  'planted': 'control: first, permuted',
  'recovered': 'control: first, matched',
}

COLUMNS = (
  'second network',
  'middle %',
  'train loss',
  'test loss',
  '(mean)',
  'error %',
  '(mean)',
  'L2 %',
  'R',
  'var.',
)


def title(way: str, kind: str = 'plain', correction: str = '') -> str:
  """Returns what a way is called, corrected or not."""
  name = TITLES.get(way, way)
  return f'{name} + {correction}' if kind == 'repaired' else name


def summarise(
  results: dict[str, dict[str, Any]], correction: str
) -> dict[str, Any]:
  """Puts everything that was measured into rows.

  Args:
    results: what ``measure`` found, by way.
    correction: what the correction of statistics is called.

  Returns:
    ``rows``, a dict for each line, numbers as ``[mean, standard deviation]``
    over pairs; ``ends``, loss and error of the networks themselves;
    ``recovered``, whether weight matching undid each planted permutation.
  """
  rows = [
    _row(way, kind, found, title(way, kind, correction))
    for way, found in results.items()
    for kind in ('plain', 'repaired')
    if kind in found
  ]
  return {
    'rows': rows,
    'ends': _ends(results['naive']['plain']),
    'recovered': results['recovered']['equal'],
  }


def _row(
  way: str, kind: str, found: dict[str, Any], name: str
) -> dict[str, Any]:
  paths = found[kind]
  row: dict[str, Any] = {
    'way': way,
    'title': name,
    'kind': kind,
    'middle': {},
    'above_chord': {},
    'above_mean': {},
  }
  for split in ('train', 'test'):
    for measure in ('loss', 'error'):
      key = f'{split} {measure}'
      curves = np.asarray([path['values'][split][measure] for path in paths])
      row['middle'][key] = _spread(curves[:, curves.shape[1] // 2])
      for height in ('above_chord', 'above_mean'):
        values = [path[height][split][measure] for path in paths]
        row[height][key] = _spread(values)
  if kind == 'plain':
    variance = [list(v.values()) for v in found['variance']]
    row |= {
      'l2_reduction': _spread(found['l2_reduction']),
      'singular': _spread(found['singular_mean']),
      'variance': _spread(np.min(variance, axis=1)),
    }
  return row


def _ends(paths: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
  found = {}
  for split in ('train', 'test'):
    for measure in ('loss', 'error'):
      curves = np.asarray([path['values'][split][measure] for path in paths])
      found[f'{split} {measure}'] = _spread(curves[:, [0, -1]].reshape(-1))
  return found


def _spread(values: Any) -> list[float]:
  """Returns mean and standard deviation."""
  x = np.asarray(values, np.float64)
  return [float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else 0.0]


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the table."""
  groups: dict[bool, list[tuple[str, ...]]] = {False: [], True: []}
  for row in summary['rows']:
    groups[row['title'].startswith('control')].append(_cells(row))
  ends = summary['ends']
  accuracy = 100 * (1 - ends['test error'][0])
  recovered = summary['recovered']
  notes = [
    f'the networks themselves: test {accuracy:.1f} ± '
    f'{100 * ends["test error"][1]:.1f} %, loss {ends["test loss"][0]:.3f}, '
    f'train loss {ends["train loss"][0]:.4f}',
    'barriers: the largest rise over the chord, and (mean) the largest value '
    'minus the mean of the ends; ±: standard deviation over pairs.',
    'middle %: test accuracy; L2: of the distance, what the permutation '
    'removes; R: alignment of leading singular vectors; var.: of activity in '
    "the middle over the ends', least layer.",
    f'planted permutations undone exactly: {sum(recovered)} of '
    f'{len(recovered)}',
  ]
  console.show_table(label, COLUMNS, [groups[False], groups[True]], notes)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
  accuracy, spread = row['middle']['test error']
  chord, mean = row['above_chord'], row['above_mean']
  rest = ('', '', '')
  if row['kind'] == 'plain':
    rest = (
      f'{100 * row["l2_reduction"][0]:.1f}',
      f'{row["singular"][0]:.3f}',
      f'{row["variance"][0]:.2f}',
    )
  return (
    row['title'],
    f'{100 * (1 - accuracy):.1f} ± {100 * spread:.1f}',
    _pair(chord['train loss'], 1, 3),
    _pair(chord['test loss'], 1, 3),
    f'{mean["test loss"][0]:.3f}',
    _pair(chord['test error'], 100, 1),
    f'{100 * mean["test error"][0]:.1f}',
    *rest,
  )


def _pair(values: list[float], factor: float, digits: int) -> str:
  mean, spread = (factor * value for value in values)
  return f'{mean:.{digits}f} ± {spread:.{digits}f}'
