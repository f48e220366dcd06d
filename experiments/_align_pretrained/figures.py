"""Figures of pretrained pairs, as PNG."""

import pathlib
from typing import Any

import numpy as np

from experiments._align_pretrained import settings, tables
from experiments._run import canvas
from experiments._shared import alignments

_LABELS = {
  'style': ('mixture', 'distance from the mixture of images'),
  'resnet': ('loss', 'test loss, nats'),
}


def distances(path: pathlib.Path, results: dict[str, dict[str, Any]]) -> None:
  """Draws how far apart each pair is after each matching.

  Args:
    path: the file to write.
    results: by pair and row.
  """
  names = list(next(iter(results.values())))
  fig, ax = canvas.single(max(7.5, 3.5 + 1.4 * len(results)), 4.2)
  width = 0.8 / len(names)
  for i, name in enumerate(names):
    x = np.arange(len(results)) + width * (i - (len(names) - 1) / 2)
    y = [found[name]['apart'] for found in results.values()]
    colour = alignments.colour(name)
    ax.bar(x, y, 0.9 * width, color=colour, label=tables.title(name))
  ax.set_xticks(np.arange(len(results)), list(results))
  ax.set_ylabel('distance, 1 if orthogonal')
  canvas.legend(ax, 'second network')
  canvas.save(fig, path)


def lines(
  path: pathlib.Path,
  setting: settings.Setting,
  results: dict[str, dict[str, Any]],
) -> None:
  """Draws the measure along the line of each pair.

  Args:
    path: the file to write.
    setting: for the kind of networks.
    results: by pair and row.
  """
  measure, label = _LABELS[setting.config.kind]
  width = max(7.5, 3 + 2.6 * len(results))
  fig, panels = canvas.grid(width, 3.8, 1, len(results), share=True)
  for ax, (pair, found) in zip(panels[0], results.items()):
    for name, one in found.items():
      if name != 'planted':
        y = one['line'][measure]
        colour, dash = alignments.colour(name), alignments.dash(name)
        text = tables.title(name)
        ax.plot(one['line']['t'], y, color=colour, ls=dash, lw=2, label=text)
    canvas.heading(ax, pair)
    ax.set_xlabel('λ')
    ax.set_xlim(0, 1)
  panels[0][0].set_ylabel(label)
  panels[0][0].set_ylim(bottom=0)
  canvas.legend(panels[0][-1], 'second network')
  canvas.save(fig, path)
