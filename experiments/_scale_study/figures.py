"""Figures of the study; ``summary`` is from ``report.summarise``."""

import pathlib
from typing import Any

from matplotlib import axes, ticker
import numpy as np

from experiments._run import canvas
from experiments._scale_study import report

_COLOURS = (
  *('#123a63', '#2f7fb8', '#7db8dc', '#b5460f', '#e08a4f', '#3d7a37'),
  *('#86b86b', '#c2a300', '#7a4a8f', '#b08cc4', '#a33058', '#6b6b6b'),
  '#111111',
)
_MB = 1e6
_DASH = (0, (4, 2))


def draw_roofline(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the attained rate against the intensity, below the ceilings."""
  rows, first = _first(summary)
  machine = summary['machines'][str(first)]
  fig, ax = canvas.single(9.0, 5.0)
  places: list[float] = []
  rates: list[float] = []
  for row, colour in zip(rows, _COLOURS):
    cost = row['executed']
    work = cost['operations'] + cost['products']
    if not row['seconds'] or not work:
      continue
    x, y = work / cost['memory'], work / row['seconds'] / 1e9
    places, rates = [*places, x], [*rates, y]
    ax.plot(x, y, 'o', ms=9, color=colour, label=row['operation'], zorder=3)
  if places:
    x = np.geomspace(min(places) / 2, max(places) * 2, 200)
    for name, title in (('operations', 'entries'), ('products', 'products')):
      top = machine[name] / 1e9
      roof = np.minimum(x * machine['memory'] / 1e9, top)
      ax.plot(x, roof, color=canvas.INK, lw=1.2, ls=_DASH, zorder=1)
      ax.annotate(
        title,
        (x[-1], top),
        xytext=(0, 4),
        textcoords='offset points',
        ha='right',
        color=canvas.INK,
      )
    ax.set_ylim(min(rates) / 2, 2 * machine['products'] / 1e9)
  ax.set(xscale='log', yscale='log')
  _plain(ax.yaxis)
  ax.set_xlabel('operations for each byte of memory')
  ax.set_ylabel('operations, 10⁹ a second')
  canvas.heading(ax, f'{rows[0]["parameters"] / 1e6:.2g} M parameters')
  canvas.legend(ax, 'operation')
  canvas.save(fig, path)


def draw_times(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws measured times against the size, and lines of the predictions."""
  largest, first = _first(summary)
  names = [row['operation'] for row in largest]
  cheap = len(names) - len(names) // 2
  # Those that take longest have a panel of their own.
  order = np.argsort([row['predicted'] for row in largest])
  fig, panels = canvas.grid(11.5, 4.6, 1, 2)
  for ax, chosen in zip(panels[0], (order[:cheap], order[cheap:])):
    for i in chosen:
      rows = [
        row
        for row in summary['rows']
        if (row['operation'], row['devices']) == (names[i], first)
      ]
      n = [row['parameters'] / 1e6 for row in rows]
      colour = _COLOURS[i % len(_COLOURS)]
      ax.plot(n, [1e3 * row['predicted'] for row in rows], color=colour, lw=2)
      known = [(x, 1e3 * r['seconds']) for x, r in zip(n, rows) if r['seconds']]
      if known:
        ax.plot(*zip(*known), 'o', color=colour, ms=7, label=names[i])
    ax.set_yscale('log')
    sizes = sorted({row['parameters'] / 1e6 for row in summary['rows']})
    canvas.log_ticks(ax, [float(f'{x:.2g}') for x in sizes])
    _plain(ax.yaxis)
    ax.set_xlabel('parameters, 10⁶')
    canvas.legend(ax, 'measured')
  panels[0][0].set_ylabel('milliseconds; lines: predicted')
  canvas.save(fig, path)


def draw_devices(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws bytes sent and held by a device against the number of devices."""
  devices = sorted({row['devices'] for row in summary['rows']})
  by_device = {d: report.largest(summary['rows'], d) for d in devices}
  names = [row['operation'] for row in by_device[devices[0]]]
  fig, panels = canvas.grid(11.5, 4.6, 1, 2)
  titles = ('sent by a device, MB', 'held by a device at the peak, MB')
  for ax, value, title in zip(panels[0], (_sent, _held), titles):
    for i, name in enumerate(names):
      rows = [by_device[d][i] for d in devices]
      colour = _COLOURS[i % len(_COLOURS)]
      line, dots = (
        [value(row[k]) / _MB for row in rows] for k in ('expected', 'counted')
      )
      _positive(ax, devices, line, '-', color=colour, lw=2)
      _positive(ax, devices, dots, 'o', color=colour, ms=7, label=name)
    ax.set_yscale('log')
    _plain(ax.yaxis)
    canvas.log_ticks(ax, devices, base=2)
    ax.set_xlabel('devices; lines: formula, points: compiled program')
    canvas.heading(ax, title)
  canvas.legend(panels[0][1], 'operation')
  canvas.save(fig, path)


def _plain(axis: Any) -> None:
  """Labels powers of ten as numbers, and no places between them."""
  axis.set_major_formatter(ticker.FormatStrFormatter('%g'))
  axis.set_minor_formatter(ticker.NullFormatter())


def _first(summary: dict[str, Any]) -> tuple[list[Any], int]:
  """Returns the largest models on the fewest devices, and their number."""
  first = min(row['devices'] for row in summary['rows'])
  return report.largest(summary['rows'], first), first


def _sent(cost: dict[str, float]) -> float:
  return cost['link']


def _held(cost: dict[str, float]) -> float:
  return cost['arguments'] + cost['results'] + cost['temporaries']


def _positive(ax: axes.Axes, x: Any, y: Any, style: str, **line: Any) -> None:
  """Plots the points above zero, which a logarithmic axis can show."""
  pairs = [(a, b) for a, b in zip(x, y) if b > 0]
  if pairs:
    ax.plot(*zip(*pairs), style, **line)
