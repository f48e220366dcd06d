"""Heat maps of statistics: layers x modules, a panel for each measure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib import axes, colors, figure
import numpy as np

from experiments._merge_checkpoints import modules
from experiments._run import canvas

_MOST_MODULES, _MOST_TEXTS = 28, 60


def draw(rows: Sequence[Mapping[str, Any]]) -> figure.Figure:
  """Draws a panel of layers x modules for each measure.

  Tensors outside the layers are left out; without layers, modules have one
  column.

  Args:
    rows: of ``parts.statistics``.
  """
  names = modules.layers(rows)
  cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
  for row in rows:
    layer, kind = modules.place(row['name'])
    if len(names) < 2:
      layer = modules.OUTSIDE
    elif layer == modules.OUTSIDE:
      continue
    cells.setdefault((kind, layer), []).append(row)
  inside = [row for cell in cells.values() for row in cell]
  kinds = list(modules.by_module(inside))[:_MOST_MODULES]
  columns = names if len(names) > 1 else [modules.OUTSIDE]
  measures = modules.measures(rows)
  wide = min(3, len(measures))
  high = -(-len(measures) // wide)
  fig, panels = canvas.grid(
    13, high * (1.1 + 0.21 * len(kinds)), high, wide, share=True
  )
  for ax, measure in zip([a for line in panels for a in line], measures):
    values = np.full((len(kinds), len(columns)), np.nan)
    for i, kind in enumerate(kinds):
      for j, layer in enumerate(columns):
        found = modules.mean(cells.get((kind, layer), ()), measure.of)
        values[i, j] = np.nan if found is None else found
    _heat_map(ax, values, measure, kinds, modules.short(columns))
  for ax in [a for line in panels for a in line][len(measures) :]:
    ax.set_visible(False)
  return fig


def _heat_map(
  ax: axes.Axes,
  values: np.ndarray,
  measure: modules.Measure,
  kinds: Sequence[str],
  layers: Sequence[str],
) -> None:
  """Draws one panel; values are written if there are few."""
  colours = mpl.colormaps[measure.colours].with_extremes(bad='#f0f0f0')
  low = np.nanmin(values) if measure.low is None else measure.low
  high = np.nanmax(values) if measure.high is None else measure.high
  norm = colors.Normalize(low, max(high, low + 1e-9))
  image = ax.imshow(values, cmap=colours, norm=norm, aspect='auto')
  ax.grid(False)
  ax.spines[:].set_visible(False)
  ax.tick_params(length=0)
  step = -(-len(layers) // 10)
  ax.set_xticks(range(0, len(layers), step), list(layers)[::step])
  ax.set_yticks(range(len(kinds)), kinds, fontsize=9)
  if len(layers) > 1:
    ax.set_xlabel('layer')
    if max(map(len, layers)) > 3:
      ax.tick_params(axis='x', labelrotation=90, labelsize=8)
  canvas.heading(ax, measure.title)
  if values.size <= _MOST_TEXTS:
    for (i, j), value in np.ndenumerate(values):
      if np.isfinite(value):
        r, g, b, _ = colours(norm(value))
        ink = 'white' if 0.3 * r + 0.59 * g + 0.11 * b < 0.55 else 'black'
        text = f'{value:.{measure.digits}f}'
        ax.text(j, i, text, ha='center', va='center', color=ink, fontsize=8)
  bar = ax.figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02)
  bar.outline.set_visible(False)
  bar.ax.tick_params(labelsize=9, colors=canvas.INK, length=0)
