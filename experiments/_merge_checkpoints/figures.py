"""Figures of a merge: statistics by layer, conflicts, sizes, norms."""

from collections.abc import Callable, Mapping, Sequence
import io
import pathlib
import re
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib import figure
import numpy as np

from experiments._merge_checkpoints import heat_maps, modules
from experiments._run import canvas

_BLUE, _COLOURS = '#1f6fb4', (
  '#1f6fb4', '#d1692b', '#2c8a3d', '#8c56b8', '#b8a01f', '#c2559d',
)  # fmt: skip
_MOST_BARS, _MOST_LINES = 16, 6
_SMALL = 0.004  # of the parameters: modules below are drawn together
Rows = Sequence[Mapping[str, Any]]


class Drawn(NamedTuple):
  """A figure: its file in the folder of the run, and the same as SVG."""

  file: str
  title: str
  caption: str
  svg: str


def draw(rows: Rows, folder: pathlib.Path) -> list[Drawn]:
  """Draws all figures that the statistics allow.

  Args:
    rows: of ``parts.statistics``.
    folder: takes a PNG of each.

  Returns:
    The figures.
  """
  found = []
  makers: list[tuple[Callable[[Rows], figure.Figure | None], str, str, str]] = [
    (heat_maps.draw, 'layers.png', 'Statistics by layer and module',
     'A cell is the mean over its tensors, weighted by parameters; grey where '
     'it is not defined.'),
    (_norms, 'norms.png', 'Size of the changes by layer',
     'Norm of the task vector of each model and of the merged change, divided '
     'by the norm of the base; means over the tensors of a layer.'),
    (_histograms, 'conflicts.png', 'Agreement of the models',
     'Shares of parameters by the statistic of their tensor. Sign conflict is '
     'the share of change against the elected sign: 0 % if all models change '
     'each entry in one direction, 50 % if their changes cancel; of T '
     'independent Gaussian changes it is 50 (1 − 1/√T) %.'),
    (_sizes, 'sizes.png', 'Parameters by module',
     'Float tensors that are merged.'),
  ]  # fmt: skip
  for make, file, title, caption in makers:
    fig = make(rows) if rows else None
    if fig is not None:
      canvas.save(fig, folder / file)
      found.append(Drawn(file, title, caption, _svg(fig)))
  return found


def _svg(fig: figure.Figure) -> str:
  """Returns a figure as SVG; equal figures are equal texts."""
  stream = io.StringIO()
  with mpl.rc_context({'svg.hashsalt': 'wsl', 'svg.fonttype': 'path'}):
    fig.savefig(stream, format='svg', metadata={'Date': None})
  text = stream.getvalue()
  # Without comments and indentation, which are half of the text.
  text = re.sub(r'<!--.*?-->', '', text[text.index('<svg') :], flags=re.DOTALL)
  return re.sub(r'\s*\n\s*', '\n', text)


def _norms(rows: Rows) -> figure.Figure | None:
  """Draws the relative norms of each model and of the merged by layer."""
  names = modules.layers(rows)
  if len(names) < 2 or not any(row['base'] for row in rows):
    return None
  cells: dict[str, list[Mapping[str, Any]]] = {}
  for row in rows:
    cells.setdefault(modules.place(row['name'])[0], []).append(row)
  own = [cells[name] for name in names]
  fig, ax = canvas.single(9, 4)
  x = range(len(names))
  models = list(dict.fromkeys(m for row in rows for m in row['models']))
  lines = np.asarray(
    [[_ratio(cell, model) for cell in own] for model in models]
  )
  if len(models) > _MOST_LINES:
    ax.plot(x, np.nanmean(lines, 0), color=_BLUE, lw=2, label='models, mean')
    canvas.shade(ax, x, np.nanmin(lines, 0), np.nanmax(lines, 0), colour=_BLUE)
  else:
    for line, model, colour in zip(lines, models, _COLOURS):
      ax.plot(x, line, color=colour, lw=2, marker='o', label=label(model))
  merged = [
    modules.mean(cell, lambda r: r['merged_norm_ratio']) for cell in own
  ]
  percent = [np.nan if v is None else 100 * v for v in merged]
  ax.plot(x, percent, color='black', lw=2.5, ls=(0, (4, 2)), label='merged')
  ax.set_xlabel('layer')
  ax.set_ylabel('norm of the change, % of the base')
  step = -(-len(names) // 24)
  ax.set_xticks(list(x)[::step], modules.short(names)[::step])
  ax.set_ylim(bottom=0)
  canvas.legend(ax, '')
  return fig


def _ratio(cell: Rows, model: str) -> float:
  """Returns the mean relative norm of one model in a layer, in %."""

  def of(row: Mapping[str, Any]) -> float | None:
    found = dict(zip(row['models'], row['norm_ratio'])).get(model)
    return None if found is None else 100 * found

  mean = modules.mean(cell, of)
  return np.nan if mean is None else mean


def _histograms(rows: Rows) -> figure.Figure | None:
  """Draws the shares of parameters by cosine and by sign conflict."""
  chosen = [
    m for m in modules.measures(rows) if m.name in ('conflict', 'cosine')
  ]
  if not chosen:
    return None
  fig, panels = canvas.grid(6.2 * len(chosen), 3.6, 1, len(chosen))
  total = modules.parameters(rows)
  models = max(len(row['models']) for row in rows)
  for ax, measure in zip(panels[0], chosen[::-1]):
    pairs = [(measure.of(r), r['parameters']) for r in rows]
    known = [(v, n) for v, n in pairs if v is not None]
    values, sizes = (np.asarray(x, float) for x in zip(*known))
    low, high = _limits(measure, values)
    ax.hist(
      values,
      bins=np.linspace(low, high, 41).tolist(),
      weights=100 * sizes / total,
      color=_BLUE,
    )
    middle = np.average(values, weights=sizes)
    ax.axvline(middle, color=canvas.INK, lw=1, ls=(0, (4, 3)))
    text = f'mean {middle:.{measure.digits}f}'
    if measure.name == 'conflict':
      independent = 50 * (1 - 1 / models**0.5)
      text += f', dotted: independent changes {independent:.1f}'
      ax.axvline(independent, color=canvas.INK, lw=1.5, ls=':')
    canvas.heading(ax, text)
    ax.set_xlim(low, high)
    ax.set_xlabel(measure.title)
    ax.set_ylabel('parameters, %')
  return fig


def _limits(
  measure: modules.Measure, values: np.ndarray
) -> tuple[float, float]:
  """Returns the range of a histogram."""
  low, high = float(values.min()), float(values.max())
  if measure.name == 'conflict':
    return 0, min(1.1 * high + 2, 50)
  return max(min(low - 0.05, 0), -1), min(high + 0.05, 1)


def _sizes(rows: Rows) -> figure.Figure | None:
  """Draws the parameters of the largest modules, and of the others."""
  sizes = {k: modules.parameters(v) for k, v in modules.by_module(rows).items()}
  kinds = list(sizes)
  total = sum(sizes.values())
  large = [k for k in kinds if sizes[k] >= _SMALL * total][:_MOST_BARS]
  shown = {k: sizes[k] for k in large}
  if rest := kinds[len(large) :]:
    shown[f'{len(rest)} others'] = sum(sizes[k] for k in rest)
  scales = ((1e6, 'millions of '), (1e3, 'thousands of '), (1, ''))
  scale, unit = next(
    (x for x in scales if max(shown.values()) >= x[0]), scales[-1]
  )
  fig, ax = canvas.single(9, 0.9 + 0.27 * len(shown))
  values = [v / scale for v in shown.values()]
  bars = ax.barh(list(shown), values, color=_BLUE, height=0.7)
  texts = [f'{100 * v / total:.1f} %' for v in shown.values()]
  ax.bar_label(bars, texts, padding=4, color=canvas.INK, fontsize=9)
  ax.invert_yaxis()
  ax.grid(False)
  ax.tick_params(axis='y', length=0, labelsize=9)
  ax.set_xlim(right=1.1 * max(values))
  ax.set_xlabel(f'{unit}parameters')
  return fig


def label(model: str) -> str:
  """Returns the last part of the path of a model, and of its adapter."""
  return '+'.join(pathlib.PurePath(x).name for x in model.split('+'))
