"""Table and figures of chains of models."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from experiments._run import canvas, console, spreads

STYLES = {
  'independent': ('independent', '#7f7f7f'),
  'bct': ('BCT', '#e8871e'),
  'bt2': ('BT²', '#1f6fb4'),
  'simplex': ('d-Simplex', '#2a8c4a'),
  'simplex_hoc': ('d-Simplex + HOC', '#c2559d'),
}
PAIRS = ('old/old', 'new/old', 'new/new')  # queries/gallery


def summarise(
  classes: Sequence[int], results: dict[str, Any]
) -> dict[str, Any]:
  """Summarises the measurements.

  Args:
    classes: the number of classes of each stage.
    results: by method, from ``settings.measure``.

  Returns:
    ``rows``: a dict for each method, ``top1`` and ``map`` of the first two
    stages by ``PAIRS`` and the ``compatibility`` of the chain, as ``[mean,
    standard deviation]`` over seeds, and ``matrix``, the mean of ``top1``;
    ``claims``: for each, whether it holds in the mean over seeds, in how many
    seeds, and the differences.
  """
  rows = []
  for name, found in results.items():
    row: dict[str, Any] = {'method': name}
    for metric in ('top1', 'map'):
      row[metric] = [spreads.spread(x) for x in _pairs(found[metric]).T]
    row['compatibility'] = spreads.spread(found['compatibility'])
    row['matrix'] = np.mean(found['top1'], 0).tolist()
    rows.append(row)
  return {
    'stages': list(classes),
    'pairs': list(PAIRS),
    'rows': rows,
    'claims': _claims(results),
  }


def _pairs(matrices: Any) -> np.ndarray:
  """Returns the entries of ``PAIRS``, ``[S, 3]``."""
  m = np.asarray(matrices)
  return np.stack([m[:, 0, 0], m[:, 1, 0], m[:, 1, 1]], 1)


def _claims(results: dict[str, Any]) -> dict[str, Any]:
  """Compares methods by mean average precision, seed by seed."""
  found = {name: _pairs(result['map']) for name, result in results.items()}
  alone = found['independent']
  wanted = {'independent: new/old above old/old': alone[:, 1] - alone[:, 0]}
  for name in [name for name in found if name != 'independent']:
    title, own = STYLES[name][0], found[name]
    wanted[f'{title}: new/old above old/old'] = own[:, 1] - own[:, 0]
    wanted[f'{title}: new/new not below independent'] = own[:, 2] - alone[:, 2]
  if {'bct', 'bt2'} <= set(found):
    ours, theirs = found['bt2'], found['bct']
    wanted['BT²: new/old above BCT'] = ours[:, 1] - theirs[:, 1]
    wanted['BT²: new/new above BCT'] = ours[:, 2] - theirs[:, 2]
  return {
    claim: {
      'holds': bool(by.mean() > 0),
      'seeds': int((by > 0).sum()),
      'by': by.tolist(),
    }
    for claim, by in wanted.items()
  }


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the table and the verdicts on the claims."""
  console.show_table(
    label,
    (
      'method',
      *(f'{pair} top-1' for pair in PAIRS),
      *(f'{pair} mAP' for pair in PAIRS),
      'AC',
    ),
    [
      [
        (
          STYLES[row['method']][0],
          *map(spreads.percent, row['top1']),
          *map(spreads.percent, row['map']),
          spreads.text(row['compatibility'], digits=2),
        )
        for row in summary['rows']
      ]
    ],
    [
      'queries/gallery, %, of images that no model is trained on; ±: standard '
      f'deviation over seeds; AC: over the {len(summary["stages"])} stages.',
      '; '.join(
        f'{claim}: {"yes" if found["holds"] else "no"} ({found["seeds"]} of '
        f'{len(found["by"])} seeds)'
        for claim, found in summary['claims'].items()
      ),
    ],
  )


def draw_pairs(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the retrieval scores of the first two stages."""
  fig, panels = canvas.grid(12.5, 4.4, 1, 2)
  for ax, metric, title in zip(
    panels[0], ('top1', 'map'), ('nearest neighbour', 'mean average precision')
  ):
    count = len(summary['rows'])
    for i, row in enumerate(summary['rows']):
      name, colour = STYLES[row['method']]
      mean, spread = 100 * np.asarray(row[metric]).T
      places = np.arange(len(PAIRS)) + 0.8 / count * (i - (count - 1) / 2)
      ax.bar(places, mean, 0.7 / count, yerr=spread, color=colour, label=name)
    ax.set_xticks(range(len(PAIRS)), PAIRS)
    ax.set_title(title, loc='left', color=canvas.INK)
    ax.set_xlabel('queries / gallery')
    ax.set_ylim(0, 100)
  panels[0][0].set_ylabel('%')
  canvas.legend(panels[0][1], 'new model')
  canvas.save(fig, path)


def draw_matrices(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the compatibility matrix of every method."""
  rows, count = summary['rows'], len(summary['stages'])
  fig, panels = canvas.grid(2.6 * len(rows) + 0.6, 3.2, 1, len(rows))
  for ax, row in zip(panels[0], rows):
    matrix = 100 * np.asarray(row['matrix'])
    ax.imshow(matrix, cmap='Blues', vmin=0, vmax=120)
    for i, j in np.ndindex(*matrix.shape):
      above = i > j and matrix[i, j] > matrix[j, j]
      ax.text(
        j,
        i,
        f'{matrix[i, j]:.0f}',
        ha='center',
        va='center',
        color='white' if matrix[i, j] > 60 else canvas.INK,
        fontweight='bold' if above else 'normal',
      )
    labels = [str(i + 1) for i in range(count)]
    ax.set_xticks(range(count), labels)
    ax.set_yticks(range(count), labels)
    ax.grid(visible=False)
    ax.set_title(STYLES[row['method']][0], color=canvas.INK)
    ax.set_xlabel('gallery of model')
  panels[0][0].set_ylabel('queries of model')
  canvas.save(fig, path)
