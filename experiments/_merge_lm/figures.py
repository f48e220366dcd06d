"""Figures of merged language models."""

import pathlib
from typing import Any

from matplotlib import axes
import numpy as np

from experiments._merge_lm import titles
from experiments._run import canvas

BLUE, ORANGE, GREEN = '#1f6fb4', '#e8871e', '#2a8c4a'
COLOURS = (BLUE, ORANGE, GREEN, '#8c6d31', '#c2559d', '#7f7f7f')
ACROSS = 3  # panels of lines in a row


def merges(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the mean loss of each merge, and its change of each domain."""
  rows = [row for row in summary['rows'] if row['kind'] == 'merge']
  bounds = {r['method']: r for r in summary['rows'] if r['kind'] == 'bound'}
  height = 1.8 + 0.32 * len(rows)
  fig, panels = canvas.grid(11.5, height, 1, 2)
  left, right = panels[0]
  y = np.arange(len(rows))
  mean, deviation = np.array([row['mean'] for row in rows]).T
  left.errorbar(
    mean, y, xerr=deviation, fmt='o', color=BLUE, ms=7, capsize=3, zorder=3
  )
  left.grid(axis='x', color='#e6e6e6', lw=0.8)
  for (name, row), ls in zip(bounds.items(), (':', '--', '-')):
    label = titles.title(name)
    left.axvline(row['mean'][0], color=canvas.INK, ls=ls, lw=1.2, label=label)
  left.set_ylim(-0.5, len(rows) - 0.5)
  left.set_yticks(y, [titles.title(row['method']) for row in rows])
  left.set_xlabel('test bits for each byte, mean over domains')
  left.legend(
    loc='lower left', bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=10
  )
  base = np.array([pair[0] for pair in bounds['base']['domains']])
  change = np.array([[pair[0] for pair in row['domains']] for row in rows])
  _grid(right, change - base[None], summary['domains'])
  canvas.save(fig, path)


def _grid(ax: axes.Axes, change: np.ndarray, domains: list[str]) -> None:
  """Draws changes ``[rows, D]`` as colours and numbers."""
  most = max(float(np.abs(change).max()), 1e-3)
  ax.imshow(
    change,
    cmap='RdBu_r',
    vmin=-most,
    vmax=most,
    aspect='auto',
    origin='lower',
    alpha=0.75,
  )
  for (i, j), value in np.ndenumerate(change):
    ax.text(j, i, f'{value:+.2f}', ha='center', va='center', fontsize=9)
  ax.set_xticks(np.arange(len(domains)), domains)
  ax.set_yticks([])
  ax.grid(visible=False)
  canvas.heading(ax, 'change from the base, bits for each byte')


def lines(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the loss on both domains along each line between two experts."""
  found = summary['lines']
  base = next(r for r in summary['rows'] if r['method'] == 'base')
  level = {d: p[0] for d, p in zip(summary['domains'], base['domains'])}
  count = len(found['pairs'])
  across = min(ACROSS, count)
  down = -(-count // across)
  fig, panels = canvas.grid(4.2 * across, 3.4 * down, down, across)
  flat = [ax for row in panels for ax in row]
  x = np.asarray(found['weights'])
  for ax, pair, bits in zip(flat, found['pairs'], np.asarray(found['bits'])):
    for i, colour in enumerate((BLUE, ORANGE)):
      y = bits[..., i]
      spread = y.std(1, ddof=1) if y.shape[1] > 1 else 0 * x
      label = f'loss on {pair[i]}'
      canvas.curve(ax, x, y.mean(1), spread, colour=colour, label=label, ms=4)
      ax.axhline(level[pair[i]], color=colour, ls=(0, (4, 3)), lw=1)
    ax.set_ylim(top=1.25 * bits.max())
    ax.legend(loc='upper center', frameon=False, fontsize=10)
    ax.set_xlabel(f'{pair[0]}  →  {pair[1]}')
  for ax in flat[count:]:
    ax.set_axis_off()
  for row in panels:
    row[0].set_ylabel('bits for each byte')
  fig.suptitle(
    'Between two experts (dashed: base)',
    color=canvas.INK,
    fontsize=12,
  )
  canvas.save(fig, path)


def subsets(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws statistics of merges of subsets by the number of members."""
  names = {
    'beats_base': ('better than the base, %', 100),
    'over_base': ('gain over the base, bits/byte', 1),
    'over_best': ('gain over the best member', 1),
  }
  fig, panels = canvas.grid(13, 6.4, 2, 3)
  for row, kind in zip(panels, ('untuned', 'tuned')):
    for ax, (name, (label, factor)) in zip(row, names.items()):
      for (method, found), colour in zip(summary['subsets'].items(), COLOURS):
        y = factor * np.asarray(found[kind][name])
        spread = y.std(0, ddof=1) if len(y) > 1 else 0 * y[0]
        title = titles.title(method)
        canvas.curve(
          ax, found['sizes'], y.mean(0), spread, colour=colour, label=title
        )
      ax.axhline(0, color=canvas.INK, lw=0.8)
      ax.set_xticks(found['sizes'])
      ax.set_ylabel(label)
    how = 'coefficient 1' if kind == 'untuned' else 'coefficient by validation'
    canvas.heading(row[0], how)
  canvas.legend(panels[0][-1], 'method')
  for ax in panels[-1]:
    ax.set_xlabel('merged experts')
  canvas.save(fig, path)
