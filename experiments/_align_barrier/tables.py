"""The table of an experiment on barriers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._align_barrier import claims
from experiments._run import console, spreads, verdicts
from experiments._shared import alignments
from wsl import align

TITLES = {
  **alignments.TITLES,
  'naive': 'as it is',
  'random': 'control: at random',
  'planted': 'control: first, moved',
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
  'apart',
  'R',
  'var.',
)


def title(way: str, kind: str = 'plain', correction: str = '') -> str:
  """Returns the title of a pairing, with or without correction."""
  name = TITLES[way] if way in TITLES else _row_title(way)
  return f'{name} + {correction}' if kind == 'repaired' else name


def _row_title(way: str) -> str:
  """Returns the title of a row of the ladder, or the name of a method."""
  kinds = {*way.split('_')} & {*align.GAUGES}
  known = kinds or way in alignments.ROWS
  return alignments.row_title(way) if known else way


def summarise(
  results: dict[str, dict[str, Any]], correction: str, ladder: Any = ()
) -> dict[str, Any]:
  """Summarises the measurements.

  Args:
    results: from ``measure``, by pairing.
    correction: name of the correction of statistics.
    ladder: of the config, or nothing.

  Returns:
    ``rows``, a dict for each line, numbers as ``[mean, standard deviation]``
    over pairs; ``ends``, loss and error of the networks themselves;
    ``recovered``, whether weight matching inverted each planted permutation;
    and with a ladder ``claims``, see there.
  """
  rows = [
    _row(way, kind, found, title(way, kind, correction))
    for way, found in results.items()
    for kind in ('plain', 'repaired')
    if kind in found
  ]
  judged = {'claims': claims.judge(results, ladder)} if ladder else {}
  return {
    'rows': rows,
    'ends': _ends(results['naive']['plain']),
    'recovered': results['recovered']['equal'],
    **judged,
  }


def _row(
  way: str, kind: str, found: dict[str, Any], name: str
) -> dict[str, Any]:
  """Returns one line of the table as numbers."""
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
      row['middle'][key] = spreads.spread(curves[:, curves.shape[1] // 2])
      for height in ('above_chord', 'above_mean'):
        values = [path[height][split][measure] for path in paths]
        row[height][key] = spreads.spread(values)
  if kind == 'plain':
    variance = [list(v.values()) for v in found['variance']]
    row |= {
      'l2_reduction': spreads.spread(found['l2_reduction']),
      'apart': spreads.spread(found['apart']),
      'singular': spreads.spread(found['singular_mean']),
      'variance': spreads.spread(np.min(variance, axis=1)),
    }
  return row


def _ends(paths: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
  """Returns loss and error of all end points."""
  found = {}
  for split in ('train', 'test'):
    for measure in ('loss', 'error'):
      curves = np.asarray([path['values'][split][measure] for path in paths])
      found[f'{split} {measure}'] = spreads.spread(
        curves[:, [0, -1]].reshape(-1)
      )
  return found


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the table."""
  groups: dict[bool, list[tuple[str, ...]]] = {False: [], True: []}
  for row in summary['rows']:
    groups[row['title'].startswith('control')].append(_cells(row))
  ends = summary['ends']
  recovered = summary['recovered']
  exact = (
    f'planted permutations inverted exactly: {sum(recovered)} of '
    f'{len(recovered)}'
  )
  notes = [
    f'the networks themselves: test {_accuracy(ends)} %, loss '
    f'{ends["test loss"][0]:.3f}, train loss {ends["train loss"][0]:.4f}',
    'barriers: the largest height above the chord, and (mean) the largest '
    'value minus the mean of the ends; ±: standard deviation over pairs.',
    'middle %: test accuracy; L2: share of the distance that the matching '
    'removes; apart: distance, 1 for orthogonal weights; R: alignment of '
    'leading singular vectors; var.: variance of activations in the middle '
    'over that of the ends, lowest layer.',
    *([] if 'claims' in summary else [exact]),
    *verdicts.lines(summary.get('claims', {})),
  ]
  console.show_table(label, COLUMNS, [groups[False], groups[True]], notes)


def _accuracy(errors: dict[str, list[float]]) -> str:
  """Formats test accuracy in per cent, from test errors."""
  mean, deviation = errors['test error']
  return spreads.percent([1 - mean, deviation])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
  """Formats one line of the table."""
  chord, mean = row['above_chord'], row['above_mean']
  rest = ('', '', '', '')
  if row['kind'] == 'plain':
    rest = (
      f'{100 * row["l2_reduction"][0]:.1f}',
      f'{row["apart"][0]:.3f}',
      f'{row["singular"][0]:.3f}',
      f'{row["variance"][0]:.2f}',
    )
  return (
    row['title'],
    _accuracy(row['middle']),
    spreads.text(chord['train loss'], digits=3),
    spreads.text(chord['test loss'], digits=3),
    f'{mean["test loss"][0]:.3f}',
    spreads.percent(chord['test error']),
    f'{100 * mean["test error"][0]:.1f}',
    *rest,
  )
