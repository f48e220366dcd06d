"""Figures of the three protocols."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from experiments._protocols import settings
from experiments._run import canvas, spreads

_STYLES = {
  'mean': ('average', '#7f7f7f'),
  'sum': ('task arithmetic', '#1f6fb4'),
  'ties': ('TIES', '#e8871e'),
  'dare+sum': ('DARE + sum', '#123a63'),
  'dare+ties': ('DARE + TIES', '#f2b872'),
  'consensus': ('consensus TA', '#b5460f'),
  'fisher': ('Fisher', '#8cc152'),
  'regmean': ('RegMean', '#2c8a3d'),
  'model_stock': ('Model Stock', '#17a2a2'),
  'localize_and_stitch': ('Localize-and-Stitch', '#8c6d31'),
  'tsv': ('TSV-M', '#6a3d9a'),
  'iso_c': ('Iso-C', '#c2559d'),
}
_MARKERS = ('o', '^', 's', 'D')


def style(method: str) -> tuple[str, str]:
  """Returns the title and the colour of a method."""
  return _STYLES.get(method, (method, '#333333'))


def bench(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the normalised score against forgetting, and against seconds."""
  rows = [r for r in summary['rows'] if r['protocol'] == settings.BENCH]
  sizes = [*dict.fromkeys(row['size'] for row in rows)]
  fig, panels = canvas.grid(12.4, 4.6, 1, 2, share=True)
  left, right = panels[0]
  for row in rows:
    title, colour = style(row['method'])
    marker = _MARKERS[sizes.index(row['size']) % len(_MARKERS)]
    (y, dy), (x, dx) = (
      spreads.spread(100 * np.asarray(row[name]))
      for name in ('normalised', 'forgetting')
    )
    shown = title if row['size'] == sizes[-1] else None
    look: dict[str, Any] = {'color': colour, 'marker': marker, 'markersize': 9}
    left.errorbar(x, y, xerr=dx, yerr=dy, elinewidth=0.8, **look)
    right.errorbar(1000 * row['seconds'], y, yerr=dy, elinewidth=0.8, **look)
    right.plot([], [], linestyle='', color=colour, marker='s', label=shown)
  for size, marker in zip(sizes, _MARKERS):
    right.plot(
      [], [], linestyle='', color=canvas.INK, marker=marker, label=size
    )
  left.set_xlabel('forgetting on tasks without an expert, %')
  left.set_ylabel('score relative to the experts, %')
  times = [1000 * row['seconds'] for row in rows]
  places = [m * 10**e for e in range(-2, 7) for m in (1, 2, 5)]
  low, high = min(times) / 1.3, max(times) * 1.3
  canvas.log_ticks(right, [place for place in places if low < place < high])
  right.set_xlabel('time of the search, milliseconds')
  canvas.legend(right, 'method and model')
  canvas.save(fig, path)


def scale(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws held-in and held-out scores against the number of experts."""
  labels = {
    'held_in': 'held-in, % of the experts',
    'held_out': 'held-out, % of the base',
  }
  _curves(path, summary, settings.SCALE, labels)


def wild(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the statistics of random subsets against their size."""
  labels = {
    'beats_base': 'merges above the base, %',
    'over_base': 'gain over the base, points',
    'over_best': 'gain over the best member, points',
  }
  _curves(path, summary, settings.WILD, labels)


def _curves(
  path: pathlib.Path,
  summary: dict[str, Any],
  protocol: str,
  labels: dict[str, str],
) -> None:
  """Draws statistics by the number of experts; a row for each model."""
  rows = [row for row in summary['rows'] if row['protocol'] == protocol]
  sizes: Sequence[str] = [*dict.fromkeys(row['size'] for row in rows)]
  fig, panels = canvas.grid(
    4.6 * len(labels) + 2.4, 3.6 * len(sizes), len(sizes), len(labels)
  )
  for size, line in zip(sizes, panels):
    for ax, (name, label) in zip(line, labels.items()):
      for row in rows:
        if row['size'] == size:
          title, colour = style(row['method'])
          mean, spread = 100 * np.asarray(spreads.columns(row[name])).T
          x = row['counts']
          canvas.curve(ax, x, mean, spread, colour=colour, label=title)
      ax.set_xticks(row['counts'])
      if name.startswith('beats'):
        ax.set_ylim(-4, 104)
      if name.startswith('over'):
        ax.axhline(0, color=canvas.INK, lw=1, ls=(0, (4, 3)))
      canvas.heading(ax, size)
      ax.set_ylabel(label)
      ax.set_xlabel('merged experts')
  canvas.legend(panels[0][-1], 'method')
  canvas.save(fig, path)
