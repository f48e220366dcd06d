"""The table of a comparison of merges."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._merge_vision import titles
from experiments._run import console, spreads

COLUMNS = (
  'method',
  'test %',
  '±',
  'norm. %',
  'worst task',
  'λ',
  'arguments',
  'data',
  'evals',
  'merge s',
  'peak',
  'CLIP',
)


def summarise(
  tasks: Sequence[str],
  bounds: dict[str, dict[str, Any]],
  results: dict[str, dict[str, Any]],
) -> dict[str, Any]:
  """Summarises the measurements.

  Args:
    tasks: T names.
    bounds: accuracies ``[S, T]`` on both splits of base, experts and joint.
    results: from ``sweep``, by method.

  Returns:
    ``tasks``; ``rows``, a dict for each line; ``order``, the methods from worst
    to best test mean; ``disagreements`` with the published order; ``winner``,
    the best merge by validation accuracy with its best seed.
  """
  experts = np.asarray(bounds['experts']['test'])
  rows = [
    _row(name, 'bound', tasks, found, experts) for name, found in bounds.items()
  ]
  for name, found in results.items():
    kind = 'family' if found['family'] else 'merge'
    rows.append(_row(name, kind, tasks, found, experts))
  merges = sorted(
    (row for row in rows if row['kind'] == 'merge'), key=lambda r: r['mean']
  )
  return {
    'tasks': list(tasks),
    'rows': rows,
    'order': [row['method'] for row in merges],
    'disagreements': _disagreements(merges),
    'winner': _winner(merges),
  }


def _row(
  name: str,
  kind: str,
  tasks: Sequence[str],
  found: dict[str, Any],
  experts: np.ndarray,
) -> dict[str, Any]:
  """Returns one line of the table as numbers."""
  test = np.asarray(found['test'])
  mean, std = spreads.spread(test.mean(1))
  ratio, ratio_std = spreads.spread((test / np.maximum(experts, 1e-9)).mean(1))
  worst = int(test.mean(0).argmin())
  row = {
    'method': name,
    'title': titles.TITLES.get(name, name),
    'kind': kind,
    'mean': mean,
    'std': std,
    'normalised': ratio,
    'normalised_std': ratio_std,
    'worst': {'task': tasks[worst], 'accuracy': float(test.mean(0)[worst])},
    'validation_mean': float(np.mean(found['validation'])),
    'validation': found['validation'],
    'test': found['test'],
    'published': titles.PUBLISHED.get(name),
  }
  if kind != 'bound':
    row |= {
      'coef': found['coef'],
      'arguments': found['arguments'],
      'data': found['data'],
      'evaluations': found['evaluations'],
      'merge_seconds': found['merge_seconds'],
      'peak_models': found['peak_models'],
      'curve': {'coefs': found['coefs'], 'validation': found['curve']},
    }
  return row


def without_curve(row: dict[str, Any]) -> dict[str, Any]:
  """Returns a row of the table without its validation curve."""
  return {key: value for key, value in row.items() if key != 'curve'}


def _disagreements(merges: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Lists pairs ordered against the published results, by a point or more."""
  known = [row for row in merges if row['published'] is not None]
  return [
    {
      'here_better': high['method'],
      'published_better': low['method'],
      'here_points': 100 * (high['mean'] - low['mean']),
      'published_points': low['published'] - high['published'],
    }
    for i, low in enumerate(known)
    for high in known[i + 1 :]
    if high['mean'] - low['mean'] >= 0.01
    and low['published'] - high['published'] >= 1
  ]


def _winner(merges: list[dict[str, Any]]) -> dict[str, Any] | None:
  """Returns the best merge on validation images, with its best seed."""
  if not merges:
    return None
  best = max(merges, key=lambda row: row['validation_mean'])
  seed = int(np.mean(best['validation'], 1).argmax())
  return {
    'method': best['method'],
    'arguments': best['arguments'],
    'coef': best['coef'],
    'seed': seed,
    'validation': float(np.mean(best['validation'][seed])),
    'test': float(np.mean(best['test'][seed])),
  }


def show(title: str, summary: dict[str, Any]) -> None:
  """Prints the table."""
  groups: dict[str, list[tuple[str, ...]]] = {}
  for row in sorted(summary['rows'], key=lambda row: row['mean']):
    groups.setdefault(row['kind'], []).append(_cells(row))
  count = len(summary['tasks'])
  notes = [
    '±: standard deviation over seeds; norm.: mean over tasks of accuracy / '
    "its expert's; CLIP: published averages of ViT-B/32 over its eight tasks.",
    'λ and arguments: selected on labelled validation images, one choice for '
    'all seeds; data: used by the merge itself, in addition to the models.',
    'evals: merges evaluated on validation images for that choice; peak: '
    f'memory of one compiled merge, in models; {count} of them are its input.',
  ]
  if 'family' in groups:
    names = ', '.join(row[0] for row in groups['family'])
    notes.append(
      f'{names}: {count} models in one: an upper reference, not a merged model.'
    )
  for pair in summary['disagreements']:
    better, worse = (
      titles.TITLES.get(pair[k], pair[k])
      for k in ('here_better', 'published_better')
    )
    notes.append(
      f'order differs from CLIP B/32: {better} is {pair["here_points"]:.1f} '
      f'above {worse} here, {pair["published_points"]:.1f} below there.'
    )
  console.show_table(
    title,
    COLUMNS,
    [groups[k] for k in ('bound', 'merge', 'family') if k in groups],
    notes,
  )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
  """Formats one line of the table."""
  worst = row['worst']
  published = row['published']
  merged = row['kind'] != 'bound'
  return (
    row['title'],
    f'{100 * row["mean"]:.1f}',
    f'{100 * row["std"]:.1f}',
    f'{100 * row["normalised"]:.1f}',
    f'{100 * worst["accuracy"]:.1f} {worst["task"]}',
    f'{row["coef"]:g}' if merged else '',
    _arguments(row['arguments']) if merged else '',
    row['data'] if merged else '',
    str(row['evaluations']) if merged else '',
    f'{row["merge_seconds"]:.2g}' if merged else '',
    f'{row["peak_models"]:.1f}' if merged else '',
    '' if published is None else f'{published:.1f}',
  )


def _arguments(arguments: dict[str, dict[str, Any]]) -> str:
  """Formats arguments such as ``density=0.2``; omits others than numbers."""
  return ' '.join(
    f'{key}={value:g}' if isinstance(value, float) else f'{key}={value}'
    for given in arguments.values()
    for key, value in given.items()
    if isinstance(value, (int, float))
  )
