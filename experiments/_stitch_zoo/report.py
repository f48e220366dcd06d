"""Tables and figures of a zoo and its stitches."""

import pathlib
from typing import Any

from matplotlib import axes
import numpy as np

from experiments._run import canvas, console
from experiments._stitch_zoo import settings

_COLOURS = {
  'affine': '#1f6fb4',
  'orthogonal': '#e8871e',
  'trained': '#2c8a3d',
  'random': '#c2559d',
  'itself': '#7f7f7f',
}
_OTHERS = ('#17a2a2', '#8c6d31', '#d62728')


def show(
  title: str, alone: dict[str, Any], stitches: list[dict[str, Any]]
) -> None:
  """Prints the networks, all pairs, and the pairs examined closely."""
  rows = [
    [name, f'{one["flops"] / 2e6:.2f}', f'{one["parameters"]:,}']
    + [f'{100 * one["accuracy"]:.2f}']
    for name, one in alone.items()
  ]
  columns = ['network', 'multiply-adds, M', 'values', 'accuracy %']
  console.show_table(title, columns, [rows], [])
  first = next(iter(stitches[0]['ways']))
  cuts = [f'{cut}/{settings.PARTS}' for cut in stitches[0]['cuts']]
  rows = [
    [_pair(row), *_percent(row['ways'][first])]
    + [f'{np.mean(row["residual"]):.2f}', f'{np.mean(row["cka"]):.2f}']
    for row in stitches
  ]
  columns = ['first blocks on last', *cuts, 'residual', 'CKA']
  notes = [f'accuracy %, {first} maps, by the fraction of depth at the stitch']
  console.show_table('all pairs, without training', columns, [rows], notes)
  for row in _close(stitches):
    rows = [[way, *_percent(found)] for way, found in row['ways'].items()]
    for key in ('residual', 'cka'):
      rows.append([key, *(f'{value:.3f}' for value in row[key])])
    console.show_table(_pair(row), ['map', *cuts], [rows], [])


def _close(stitches: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns the pairs examined closely."""
  return [row for row in stitches if 'random' in row['ways']]


def _pair(row: dict[str, Any]) -> str:
  return f'{row["bottom"]} on {row["top"]}'


def _percent(values: list[float]) -> list[str]:
  return [f'{100 * value:.1f}' for value in values]


def draw_costs(
  path: pathlib.Path, alone: dict[str, Any], stitches: list[dict[str, Any]]
) -> None:
  """Draws accuracy against cost, of networks and stitches."""
  fig, ax = canvas.single(9.5, 4.8)
  first = next(iter(stitches[0]['ways']))
  groups = (
    ('shallow on deep', '#1f6fb4', lambda row: row['bottom'] < row['top']),
    ('deep on shallow', '#e8871e', lambda row: row['bottom'] > row['top']),
  )
  for label, colour, mine in groups:
    for way, mark in ((first, 'o'), (f'{first}, reset', 'D'), ('trained', '*')):
      rows = [row for row in stitches if mine(row) and way in row['ways']]
      if rows:
        x = np.concatenate([row['flops'] for row in rows]) / 2e6
        y = 100 * np.concatenate([row['ways'][way] for row in rows])
        size = 90 if mark == '*' else 28
        ax.scatter(
          x,
          y,
          s=size,
          marker=mark,
          color=colour,
          alpha=0.8,
          label=f'{label}, {way}',
        )
  x = np.asarray([one['flops'] for one in alone.values()]) / 2e6
  y = 100 * np.asarray([one['accuracy'] for one in alone.values()])
  ax.plot(x, y, 's-', color=canvas.INK, label='as they are', zorder=1)
  for name, a, b in zip(alone, x, y):
    ax.annotate(
      name, (a, b), xytext=(0, 7), textcoords='offset points', ha='center'
    )
  ax.set_xlabel('million multiply-adds per image')
  ax.set_ylabel('test accuracy, %')
  canvas.legend(ax, '')
  canvas.save(fig, path)


def draw_cuts(
  path: pathlib.Path, alone: dict[str, Any], stitches: list[dict[str, Any]]
) -> None:
  """Draws accuracy against the cut, for the pairs examined closely."""
  close = _close(stitches)
  if not close:
    return
  fig, panels = canvas.grid(4 + 4 * len(close), 4.6, 1, len(close), share=True)
  for ax, row in zip(panels[0], close):
    x = np.asarray(row['cuts']) / settings.PARTS
    others = iter(_OTHERS)
    for way, values in row['ways'].items():
      kind, _, changed = way.partition(', ')
      colour = _COLOURS.get(kind) or next(others)
      dash = (0, (4, 2)) if changed else '-'
      y = 100 * np.asarray(values)
      ax.plot(x, y, 'o', ls=dash, ms=4, color=colour, label=way)
    for depth in (row['bottom'], row['top']):
      _level(ax, settings.name_of(depth), alone)
    canvas.heading(ax, f'first blocks of {row["bottom"]}, last of {row["top"]}')
    ax.set_xlabel('fraction of depth at the stitch')
  panels[0][0].set_ylabel('test accuracy, %')
  canvas.legend(panels[0][-1], 'map')
  canvas.save(fig, path)


def _level(ax: axes.Axes, name: str, alone: dict[str, Any]) -> None:
  """Draws the accuracy of a network without stitch."""
  level = 100 * alone[name]['accuracy']
  ax.axhline(level, color=canvas.INK, lw=1, ls=(0, (1, 2)))
