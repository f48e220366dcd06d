"""Figures of merges, each method in one colour.

Blue methods add task vectors, orange ones select entries, green ones weight by
data, and purple ones use singular vectors.
"""

import pathlib
from typing import Any

import numpy as np

from experiments._run import canvas

_STYLES = {
  'base': ('#c2c2c2', '-'),
  'mean': ('#7f7f7f', 'D'),
  'sum': ('#1f6fb4', 'o'),
  'sum+by_depth': ('#4fb3d9', 's'),
  'dare+sum': ('#123a63', '^'),
  'ties': ('#e8871e', 'o'),
  'dare+ties': ('#f2b872', '^'),
  'consensus': ('#b5460f', 's'),
  'fisher': ('#8cc152', 'D'),
  'regmean': ('#2c8a3d', 'D'),
  'tsv': ('#6a3d9a', 'o'),
  'iso_c': ('#c2559d', 's'),
  'iso_cts': ('#e79ac8', '^'),
}
# Others share six colours, one marker after the other.
_OTHERS = ('#000000', '#8c6d31', '#17a2a2', '#d62728', '#5f6b7a', '#bcbd22')
_MARKERS = ('v', 'P', 'X', 'h', '<')
# A group shows few bars: these methods, if present, and the winner.
_BARS = ('mean', 'sum', 'ties', 'regmean', 'iso_c', 'tsv')


def sweep(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws validation accuracy against the coefficient, a line per method."""
  rows = [row for row in summary['rows'] if row['kind'] == 'merge']
  fig, ax = canvas.single(9.0, max(4.8, 0.26 * len(rows) + 0.8))
  rows.sort(key=lambda row: -row['validation_mean'])
  coefs = [c for row in rows for c in row['curve']['coefs']]
  for row in rows:
    colour, marker = _style(row['method'], summary)
    x = np.asarray(row['curve']['coefs'])
    y = 100 * np.asarray(row['curve']['validation'])
    ax.plot(x, y, color=colour, lw=1.8, zorder=2)
    ax.plot(
      row['coef'],
      100 * row['validation_mean'],
      linestyle='',
      marker=marker,
      color=colour,
      markersize=8,
      markeredgecolor='white',
      label=f'{row["title"]}  {100 * row["validation_mean"]:.1f}',
      zorder=3,
    )
  for row in summary['rows']:
    if row['kind'] == 'bound' and row['method'] != 'joint':
      value, above = 100 * row['validation_mean'], row['method'] == 'experts'
      canvas.level(ax, row['title'], value, above=above)
  ticks = [t for t in (0.1, 0.2, 0.3, 0.5, 1, 1.5, 2, 3) if t <= max(coefs)]
  canvas.log_ticks(ax, ticks)
  ax.set_xlim(min(coefs) / 1.08, max(coefs) * 1.08)
  base = next(r for r in summary['rows'] if r['method'] == 'base')
  # Merges far below the base are cut off.
  ax.set_ylim(bottom=max(0.0, 100 * base['validation_mean'] - 12))
  ax.set_xlabel('coefficient λ')
  ax.set_ylabel(
    f'validation accuracy, %, mean of {len(summary["tasks"])} tasks'
  )
  canvas.legend(ax, 'validation, % at the chosen λ')
  canvas.save(fig, path)


def tasks(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws test accuracy by task, a bar per method."""
  names = summary['tasks']
  fig, ax = canvas.single(max(7.0, 3.4 + 0.95 * len(names)), 4.2)
  rows = _chosen(summary)
  places = np.arange(len(names))
  width = 0.84 / len(rows)
  for i, row in enumerate(rows):
    colour, _ = _style(row['method'], summary)
    test = 100 * np.asarray(row['test'])
    ax.bar(
      places - 0.42 + (i + 0.5) * width,
      test.mean(0),
      width * 0.9,
      color=colour,
      yerr=test.std(0, ddof=1) if len(test) > 1 else None,
      error_kw={'elinewidth': 0.9, 'ecolor': canvas.INK},
      label=f'{row["title"]}  {100 * row["mean"]:.1f}',
      zorder=2,
    )
  for name, dash in (('joint', (0, (2, 2))), ('experts', '-')):
    row = next(r for r in summary['rows'] if r['method'] == name)
    ax.hlines(
      100 * np.asarray(row['test']).mean(0),
      places - 0.45,
      places + 0.45,
      color='black',
      lw=1.6,
      ls=dash,
      label=f'{row["title"]}  {100 * row["mean"]:.1f}',
      zorder=3,
    )
  ax.set_xticks(places, names)
  ax.tick_params(axis='x', length=0)
  ax.set_xlim(-0.6, len(names) - 0.4)
  ax.set_ylim(0, 100)
  ax.set_ylabel('test accuracy, %')
  canvas.legend(ax, 'mean of tasks, %', first=2)
  canvas.save(fig, path)


def _chosen(summary: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns the base and at most seven merges, from worst to best."""
  merges = [row for row in summary['rows'] if row['kind'] == 'merge']
  best = max(merges, key=lambda row: row['validation_mean'], default=None)
  kept = [row for row in merges if row['method'] in _BARS or row is best]
  kept = kept if len(kept) > 2 else merges[:7]
  kept.sort(key=lambda row: row['mean'])
  return [row for row in summary['rows'] if row['method'] == 'base'] + kept


def _style(method: str, summary: dict[str, Any]) -> tuple[str, str]:
  """Returns the colour and marker of a method."""
  if method in _STYLES:
    return _STYLES[method]
  others = [r['method'] for r in summary['rows'] if r['method'] not in _STYLES]
  rounds, place = divmod(others.index(method), len(_OTHERS))
  return _OTHERS[place], _MARKERS[rounds % len(_MARKERS)]
