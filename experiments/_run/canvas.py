"""Figures of one common style."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

import jax
from matplotlib import axes, figure, ticker
import numpy as np

INK = '#333333'


def single(width: float, height: float) -> tuple[figure.Figure, axes.Axes]:
  """Returns a figure of one panel; sizes are inches."""
  fig, panels = grid(width, height, 1, 1)
  return fig, panels[0][0]


def grid(
  width: float, height: float, rows: int, columns: int, *, share: bool = False
) -> tuple[figure.Figure, list[list[axes.Axes]]]:
  """Returns a figure and its panels by row and column.

  Args:
    width: in inches.
    height: in inches.
    rows: of panels.
    columns: of panels.
    share: whether the panels of a row share the y axis.

  Returns:
    The figure, and the panels.
  """
  fig = figure.Figure(figsize=(width, height), layout='constrained')
  panels = fig.subplots(
    rows, columns, squeeze=False, sharey='row' if share else False
  )
  for ax in panels.flat:
    ax.spines[['top', 'right']].set_visible(False)
    ax.spines[['left', 'bottom']].set_color(INK)
    ax.tick_params(colors=INK, labelsize=11)
    ax.xaxis.label.set(color=INK, size=12)
    ax.yaxis.label.set(color=INK, size=12)
    ax.grid(axis='y', color='#e6e6e6', lw=0.8, zorder=0)
    ax.set_axisbelow(True)
  return fig, [list(row) for row in panels]


def curve(
  ax: axes.Axes,
  x: Any,
  mean: np.ndarray,
  deviation: np.ndarray,
  *,
  colour: str,
  ls: Any = '-',
  marker: str = 'o',
  alpha: float = 0.12,
  **line: Any,
) -> None:
  """Draws a line of means, shaded by a deviation on both sides.

  Args:
    ax: where to.
    x: ``[N]``.
    mean: ``[N]``.
    deviation: ``[N]``.
    colour: of line and shade.
    ls: line style.
    marker: of the points.
    alpha: opacity of the shade.
    **line: further arguments of ``Axes.plot``.
  """
  ax.plot(x, mean, color=colour, ls=ls, marker=marker, lw=2, **line)
  shade(ax, x, mean - deviation, mean + deviation, colour=colour, alpha=alpha)


def shade(
  ax: axes.Axes,
  x: Any,
  low: np.ndarray,
  high: np.ndarray,
  *,
  colour: str,
  alpha: float = 0.15,
) -> None:
  """Fills the band between two curves ``[N]``."""
  ax.fill_between(x, low, high, color=colour, alpha=alpha, lw=0)


def heading(ax: axes.Axes, text: str) -> None:
  """Writes a small title above the left end of the axes."""
  ax.set_title(text, loc='left', color=INK, fontsize=12)


def log_ticks(ax: axes.Axes, places: Sequence[float], base: int = 10) -> None:
  """Makes the x axis logarithmic, with ticks at the places only."""
  ax.set_xscale('log', base=base)
  ax.xaxis.set_major_locator(ticker.FixedLocator(list(places)))
  ax.xaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
  ax.xaxis.set_minor_locator(ticker.NullLocator())


def level(ax: axes.Axes, name: str, value: float, *, above: bool) -> None:
  """Draws a dashed horizontal line, named at its left end."""
  ax.axhline(value, color=INK, lw=1, ls=(0, (4, 3)), zorder=1)
  ax.annotate(
    f'{name} {value:.1f}',
    (0, value),
    xycoords=('axes fraction', 'data'),
    xytext=(5, 4 if above else -5),
    textcoords='offset points',
    va='bottom' if above else 'top',
    color=INK,
  )


def legend(ax: axes.Axes, title: str, first: int = 0) -> None:
  """Draws the legend beside the axes, its ``first`` entries at the end."""
  handles, labels = ax.get_legend_handles_labels()
  found = ax.legend(
    handles[first:] + handles[:first],
    labels[first:] + labels[:first],
    title=title,
    loc='upper left',
    bbox_to_anchor=(1.01, 1.02),
    frameon=False,
    fontsize=11,
    title_fontsize=11,
    handlelength=1.1,
    labelcolor=INK,
    alignment='left',
  )
  found.get_title().set_color(INK)


def save(fig: figure.Figure, path: pathlib.Path) -> None:
  """Writes the file atomically, by process 0."""
  if jax.process_index():
    return
  part = path.with_suffix('.part')
  fig.savefig(part, format='png', dpi=160, facecolor='white')
  os.replace(part, path)
