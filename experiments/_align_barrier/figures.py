"""Figures of the lines between two networks, as PNG."""

import pathlib
from typing import Any

from matplotlib import axes
import numpy as np

from experiments._align_barrier import claims, gauge_rows, tables
from experiments._run import canvas
from experiments._shared import alignments

_COLOURS = {
  **alignments.COLOURS,
  'naive': '#7f7f7f',
  'random': '#c2c2c2',
  'recovered': '#2c8a3d',
}
_LEARNED = gauge_rows.LEARNED
_OTHERS = ('#17a2a2', '#8c6d31', '#d62728', '#bcbd22')


def paths(
  path: pathlib.Path,
  results: dict[str, dict[str, Any]],
  correction: str,
  noun: str = 'images',
) -> None:
  """Draws loss and error along the lines: mean and range over pairs.

  Args:
    path: the file to write.
    results: from ``measure``, by pairing.
    correction: name of the correction of statistics.
    noun: name of the examples.
  """
  fig, panels = canvas.grid(11.5, 6.6, 2, 2, share=True)
  columns = ('train', 'test')
  rows = (('loss', 'loss, nats', 1), ('error', 'error, %', 100))
  for row, (measure, label, factor) in zip(panels, rows):
    for ax, split in zip(row, columns):
      for way, found in results.items():
        if way != 'planted':
          colour = _colour(way, results)
          # Many rows of gauges are clearer without their corrections.
          kinds = ('plain',) if 'frame' in results else ('plain', 'repaired')
          for kind in kinds:
            if kind in found:
              name = tables.title(way, kind, correction)
              curves = [one['values'][split][measure] for one in found[kind]]
              y = factor * np.asarray(curves)
              _band(ax, found[kind][0]['t'], y, colour, _dash(way, kind), name)
      ax.set_xlim(0, 1)
    row[0].set_ylim(bottom=0)
    row[0].set_ylabel(label)
  for upper, lower, split in zip(*panels, columns):
    upper.set_title(f'{split} {noun}', loc='left', color=canvas.INK)
    lower.set_xlabel('λ, from the first network to the second')
  canvas.legend(panels[0][1], 'second network')
  canvas.save(fig, path)


def _band(
  ax: axes.Axes, t: Any, y: np.ndarray, colour: str, dash: Any, label: str
) -> None:
  """Draws the mean of curves ``[S, points]``, and their range."""
  ax.plot(t, y.mean(0), color=colour, ls=dash, lw=2, label=label)
  if len(y) > 1:
    canvas.shade(ax, t, y.min(0), y.max(0), colour=colour)


def _dash(way: str, kind: str) -> Any:
  if way == 'random':
    return ':'
  return '-' if kind == 'plain' else (0, (4, 2))


def layers(path: pathlib.Path, results: dict[str, dict[str, Any]]) -> None:
  """Draws the alignment of singular vectors, and variances, by layer.

  Args:
    path: the file to write.
    results: from ``measure``, by pairing.
  """
  ways = [way for way in results if way not in ('planted', 'recovered')]
  ways = _few(ways) if 'frame' in ways else ways
  names = list(results['naive']['singular'][0])
  width = max(11.5, 5 + 1.2 * len(names))
  fig, panels = canvas.grid(width, 4.6, 1, 2)
  titles = (
    ('singular', 'alignment R of leading singular vectors'),
    ('variance', 'variance of activations, middle over ends'),
  )
  for ax, (key, label) in zip(panels[0], titles):
    names = list(results['naive'][key][0])
    places = np.arange(len(names))
    for i, way in enumerate(ways):
      x = places + 0.12 * (i - (len(ways) - 1) / 2)
      y = np.asarray([list(one.values()) for one in results[way][key]])
      colour = _colour(way, results)
      ax.plot(x, y.mean(0), 'o', color=colour, label=tables.title(way))
      ax.vlines(x, y.min(0), y.max(0), color=colour, lw=2)
    ax.set_xticks(places, [_short(name) for name in names], rotation=30)
    canvas.heading(ax, label)
  panels[0][0].axhline(0, color=canvas.INK, lw=1)
  panels[0][1].axhline(1, color=canvas.INK, lw=1, zorder=1)
  panels[0][1].axhline(0.5, color=canvas.INK, lw=1, ls=(0, (4, 3)), zorder=1)
  panels[0][1].annotate(
    'one layer of unrelated units',
    (1, 0.5),
    xycoords=('axes fraction', 'data'),
    xytext=(0, 3),
    textcoords='offset points',
    ha='right',
    color=canvas.INK,
  )
  panels[0][1].set_ylim(bottom=0)
  canvas.legend(panels[0][1], 'second network')
  canvas.save(fig, path)


def _few(ways: list[str]) -> list[str]:
  """Returns the main rows of a ladder: its start, its end, and learned."""
  after = next(i for i, w in enumerate(ways) if w in (*_LEARNED, 'random'))
  main = ('naive', 'weight_matching', ways[after - 1], 'learned')
  return [way for way in main if way in ways]


def distances(path: pathlib.Path, results: dict[str, dict[str, Any]]) -> None:
  """Draws how far apart each pair is, and its barrier, by pairing.

  Args:
    path: the file to write.
    results: from ``measure``, by pairing.
  """
  ways = [way for way in results if way != 'planted'][::-1]
  fig, panels = canvas.grid(11.5, 1.2 + 0.34 * len(ways), 1, 2, share=True)
  columns = (
    ('distance, 1 for orthogonal weights', lambda found: found['apart']),
    ('barrier in test loss, nats', claims.heights),
  )
  for ax, (label, measure) in zip(panels[0], columns):
    for place, way in enumerate(ways):
      y = np.asarray(measure(results[way]))
      colour = _colour(way, results)
      ax.plot([0, y.mean()], [place] * 2, color=colour, lw=2, alpha=0.5)
      ax.plot(y, [place] * len(y), 'o', color=colour)
    ax.set_xlim(left=0)
    ax.set_xlabel(label)
    ax.grid(visible=False, axis='y')
  names = [tables.title(way) for way in ways]
  panels[0][0].set_yticks(np.arange(len(ways)), names)
  canvas.save(fig, path)


def _colour(way: str, results: dict[str, Any]) -> str:
  if way in _COLOURS:
    return _COLOURS[way]
  if tables.title(way) != way:
    return alignments.colour(way)
  others = [name for name in results if name not in (*_COLOURS, 'planted')]
  return _OTHERS[others.index(way) % len(_OTHERS)]


def _short(name: str) -> str:
  """Returns ``block_0/conv`` for ``params/block_0/conv/kernel``."""
  return name.removeprefix('params/').removesuffix('/kernel')
