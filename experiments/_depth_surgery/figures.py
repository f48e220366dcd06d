"""Figures of depth surgery."""

import pathlib
from typing import Any

import numpy as np

from experiments._depth_surgery import claims, report, settings
from experiments._run import canvas

_COLOURS = {
  'scratch': '#333333',
  'stack': '#1f6fb4',
  'each': '#e8871e',
  'identity': '#2a8c4a',
}


def growth(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the loss against the compute of each way of growth."""
  fig, ax = canvas.single(7.6, 4.4)
  rows = [x for x in summary['rows'] if x['section'] == 'growth']
  for name, title in report.GROWN.items():
    own = [x for x in rows if x['name'] == name]
    mean, spread = np.asarray([x['bits'] for x in own]).T
    compute = [x['compute'] / 1e9 for x in own]
    canvas.curve(ax, compute, mean, spread, colour=_COLOURS[name], label=title)
  canvas.log_ticks(
    ax,
    [float(f'{x["compute"] / 1e9:.2g}') for x in rows if x['name'] == 'stack'],
    base=2,
  )
  ax.set_xlabel('compute of the training, 10^9 operations')
  ax.set_ylabel('test loss, bits for each byte')
  canvas.legend(ax, 'deep network')
  canvas.save(fig, path)


def cuts(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the loss of each cut before and after training."""
  rows = {x['name']: x for x in summary['rows'] if x['section'] == 'cuts'}
  names = [name for name in claims.CUT if name in rows]
  fig, ax = canvas.single(9.2, 0.42 * len(names) + 1.6)
  places = np.arange(len(names))[::-1]
  for place, name in zip(places, names, strict=True):
    row = rows[name]
    colour = '#1f6fb4' if name in settings.REMOVED else '#e8871e'
    ax.errorbar(
      row['cut'][0],
      place,
      xerr=row['cut'][1],
      fmt='o',
      mfc='white',
      color=colour,
    )
    if row['trained']:
      ax.plot([row['cut'][0], row['trained'][0]], [place] * 2, color=colour,
              lw=1, alpha=0.5)  # fmt: skip
      ax.errorbar(
        row['trained'][0], place, xerr=row['trained'][1], fmt='o', color=colour
      )
  ax.axvline(summary['deep'][0], color=canvas.INK, lw=1, ls=(0, (4, 3)))
  ax.set_yticks(
    places, [f'{claims.CUT[n]} ({rows[n]["layers"]})' for n in names]
  )
  ax.grid(visible=False)
  ax.set_xlabel('test loss, bits for each byte')
  canvas.heading(
    ax,
    'open: cut; filled: trained; dashed: whole network; (layers in sequence)',
  )
  canvas.save(fig, path)


def paths(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws how many windows have a path, by the number of simulations."""
  fig, ax = canvas.single(7.0, 4.2)
  for (name, shares), colour in zip(
    summary['after'].items(), ('#1f6fb4', '#c23b3b')
  ):
    ax.plot(100 * np.asarray(shares), color=colour, lw=2, label=name)
  ax.set_ylim(0, 100)
  ax.set_xlabel('simulations')
  ax.set_ylabel('windows with a path to the target, %')
  canvas.legend(ax, 'target of the search')
  canvas.save(fig, path)
