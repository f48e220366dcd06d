"""The look that all figures share."""

import os
import pathlib

from matplotlib import axes, figure

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
    share: whether the panels of a row have one scale.

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


def legend(ax: axes.Axes, title: str, first: int = 0) -> None:
  """Puts the legend beside the axes, its ``first`` entries at the end."""
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
  """Writes the file whole or not at all."""
  part = path.with_suffix('.part')
  fig.savefig(part, format='png', dpi=160, facecolor='white')
  os.replace(part, path)
