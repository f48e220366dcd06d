"""The phase diagram, and the planes of curves."""

import pathlib
from typing import Any

import ml_collections
import numpy as np

from experiments._phases import report
from experiments._run import canvas
from wsl import landscape

COLOURS = ('#8a8a8a', '#d8b365', '#c2559d', '#7fb1d9', '#2a8c4a')
# Title, colour map, whether the scale is logarithmic.
PANELS = {
  'loss': ('training loss, nats', 'viridis_r', False),
  'test': ('test accuracy, %', 'viridis', False),
  'trace': ('Hessian trace', 'magma', True),
  'top': ('largest eigenvalue', 'magma', True),
  'connectivity': ('mode connectivity, nats', 'RdBu', False),
  'similarity': ('CKA of outputs', 'viridis', False),
  'gain': ('aligned average, points', 'RdBu', False),
}


def draw(
  path: pathlib.Path,
  config: ml_collections.ConfigDict,
  found: dict[str, np.ndarray],
) -> None:
  """Draws each metric over width and rate, and the phases."""
  fig, panels = canvas.grid(16, 7.4, 2, 4)
  places = [ax for row in panels for ax in row]
  for ax, (name, (title, colours, is_log)) in zip(places, PANELS.items()):
    values = found[name].mean(-1).T
    values = 100 * values if name in ('test', 'gain') else values
    values = np.log10(np.maximum(np.abs(values), 1e-3)) if is_log else values
    limit = np.abs(values).max()
    bounds = {'vmin': -limit, 'vmax': limit} if colours == 'RdBu' else {}
    image = ax.imshow(
      values, cmap=colours, origin='lower', aspect='auto', **bounds
    )
    fig.colorbar(image, ax=ax)
    canvas.heading(ax, f'{title}, log10' if is_log else title)
  _draw_phases(places[-1], report.label_cells(config, found).T)
  for ax in places:
    ax.grid(visible=False)
    ax.set_xticks(range(len(config.widths)), config.widths)
    ax.set_yticks(range(len(config.rates)), [f'{x:g}' for x in config.rates])
  for ax in panels[-1]:
    ax.set_xlabel('width (load falls)')
  for row in panels:
    row[0].set_ylabel('learning rate (temperature)')
  canvas.save(fig, path)


def _draw_phases(ax: Any, codes: np.ndarray) -> None:
  """Draws the phase of each cell, ``[T, W]``, by colour and name."""
  channels = [
    [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    for colour in (*COLOURS, '#ffffff')  # the last one for no phase
  ]
  ax.imshow(np.asarray(channels)[codes], origin='lower', aspect='auto')
  for t, i in np.ndindex(codes.shape):
    if codes[t, i] >= 0:
      name = landscape.PHASES[codes[t, i]]
      ax.text(i, t, name, ha='center', va='center', fontsize=10)
  canvas.heading(ax, 'phase')


def draw_planes(path: pathlib.Path, surfaces: dict[str, Any]) -> None:
  """Draws the loss on the plane of a curve in each phase.

  Args:
    path: of the file.
    surfaces: from ``planes.measure``.
  """
  fig, panels = canvas.grid(4.2 * len(surfaces) + 0.8, 4, 1, len(surfaces))
  for ax, (name, found) in zip(panels[0], surfaces.items()):
    losses = np.log10(np.maximum(found['losses'], 1e-4)).T
    image = ax.contourf(found['x'], found['y'], losses, 24, cmap='viridis_r')
    bar = fig.colorbar(image, ax=ax)
    places = np.asarray(found['places'])
    ax.plot(*places.T, color='white', lw=2)
    ax.plot(*places[[0, -1]].T, 'o', color='white', mec=canvas.INK, ms=8)
    width, rate = found['cell']
    canvas.heading(ax, f'{name}: width {width}, rate {rate:g}')
    ax.grid(visible=False)
    ax.set_xlabel('distance')
  panels[0][0].set_ylabel('distance')
  bar.set_label('training loss, log10 of nats', color=canvas.INK)
  canvas.save(fig, path)
