"""Tables and figures of merges of networks from different seeds.

Figures are written to ``path``; ``summary`` is from ``summarise``.
"""

import pathlib
from typing import Any

import ml_collections
import numpy as np

from experiments._run import canvas, console, spreads
from experiments._shared import alignments

STYLES = {
  'naive': ('as they are', '#7f7f7f'),
  **{n: (alignments.TITLES[n], c) for n, c in alignments.COLOURS.items()},
  'pleas': ('PLeaS, weights', '#123a63'),
  'pleas_activations': ('PLeaS, activations', '#b5460f'),
}


def summarise(
  config: ml_collections.ConfigDict,
  budgets: dict[str, Any],
  many: dict[str, Any],
) -> dict[str, Any]:
  """Summarises the measurements.

  Args:
    config: of the run.
    budgets: from ``at_budgets.measure``.
    many: from ``many_networks.measure``.

  Returns:
    ``budgets`` and ``many``, a dict for each line, numbers as ``[mean, standard
    deviation]`` over seeds; ``own``, the accuracy of the networks themselves;
    ``advantage``, weight matching minus straight-through, seed by seed.
  """
  return {
    'levels': list(config.budgets),
    'own': {
      'budgets': spreads.spread(np.mean(budgets['own'], 1)),
      'many': spreads.spread(np.mean(many['own'], 1)),
    },
    'budgets': [
      {
        'method': name,
        'title': STYLES[name][0],
        'own': spreads.columns(np.mean(found['own'], 2)),
        'joint': spreads.columns(np.mean(found['joint'], 2)),
        'cost': _relative(found['cost']),
      }
      for name, found in budgets['methods'].items()
    ],
    'many': [
      {
        'method': name,
        'title': STYLES[name][0],
        **{key: spreads.columns(values) for key, values in found.items()},
      }
      for name, found in many['methods'].items()
    ],
    'advantage': _advantage(many['methods']),
  }


def _relative(costs: Any) -> list[float]:
  """Returns mean costs relative to the lowest, a merge of all units."""
  mean = np.mean(costs, 0)
  return (mean / mean.min()).tolist()


def _advantage(methods: dict[str, Any]) -> dict[str, list[float]]:
  """Returns test measures of weight matching minus straight-through's."""
  ours, theirs = methods['weight_matching'], methods['straight_through']
  minus = lambda key, i: np.subtract(
    np.asarray(ours[key])[:, i], np.asarray(theirs[key])[:, i]
  ).tolist()
  return {
    'barrier to the first': minus('to_first', 1),
    'barrier between others': minus('others', 1),
    'accuracy of two': minus('merged', 0),
    'accuracy of all': minus('merged', -1),
  }


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints both tables."""
  own = {key: spreads.percent(x) for key, x in summary['own'].items()}
  console.show_table(
    f'{label}: two tasks, a budget',
    ('merge', *(f'{level:g}' for level in summary['levels'])),
    [
      [
        (row['title'], *map(spreads.percent, row['own']))
        for row in summary['budgets']
      ]
    ],
    [
      f'test accuracy with the outputs of the task, mean of both, %; the '
      f'networks themselves: {own["budgets"]}; ±: standard deviation over '
      'seeds; budget: multiply-adds relative to the merge of all units.'
    ],
  )
  counts = range(2, 2 + len(summary['many'][0]['merged']))
  console.show_table(
    f'{label}: one task, many networks',
    (
      'aligned by',
      *(f'mean of {n}' for n in counts),
      'to first',
      'others',
      'R first',
      'R others',
    ),
    [
      [
        (
          row['title'],
          *map(spreads.percent, row['merged']),
          spreads.text(row['to_first'][1], digits=3),
          spreads.text(row['others'][1], digits=3),
          f'{row["to_first"][2][0]:.3f}',
          f'{row["others"][2][0]:.3f}',
        )
        for row in summary['many']
      ]
    ],
    [
      f'test accuracy of the mean of networks, %; themselves: {own["many"]}; '
      'to first, others: barrier in test loss over the chord between the first '
      'network and another, and between two others, mean of pairs; R: their '
      'alignment of leading singular vectors.',
      'weight matching minus straight-through, seed by seed: '
      + '; '.join(
        f'{key} {", ".join(f"{x:+.3f}" for x in values)}'
        for key, values in summary['advantage'].items()
      ),
    ],
  )


def draw_budgets(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws accuracy against compute, with own outputs and among all classes."""
  fig, panels = canvas.grid(11.5, 4.6, 1, 2)
  titles = (('own', "task's own outputs"), ('joint', 'outputs of both tasks'))
  for ax, (key, label) in zip(panels[0], titles):
    for row in summary['budgets']:
      mean, spread = 100 * np.asarray(row[key]).T
      name, colour = STYLES[row['method']]
      dash = '-' if row['method'].startswith('pleas') else (0, (4, 2))
      x = row['cost']
      canvas.curve(ax, x, mean, spread, ls=dash, colour=colour, label=name)
    ax.set_title(label, loc='left', color=canvas.INK)
    ax.set_xlabel('multiply-adds, relative to the merge of all units')
  own = 100 * summary['own']['budgets'][0]
  panels[0][0].axhline(own, color=canvas.INK, lw=1, zorder=1)
  panels[0][0].set_ylabel('test accuracy, %, mean of both tasks')
  canvas.legend(panels[0][1], 'merge')
  canvas.save(fig, path)


def draw_many(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws accuracy against the number of networks, and the barriers."""
  fig, panels = canvas.grid(11.5, 4.6, 1, 2)
  left, right = panels[0]
  for i, row in enumerate(summary['many']):
    name, colour = STYLES[row['method']]
    mean, spread = 100 * np.asarray(row['merged']).T
    counts = np.arange(2, 2 + len(mean))
    canvas.curve(left, counts, mean, spread, colour=colour)
    if row['method'] == 'naive':
      continue  # its barriers are far above the scale of the others
    heights = np.asarray([row['to_first'][1], row['others'][1]])
    places = np.arange(2) + 0.16 * (i - 2.5)
    right.bar(
      places, heights[:, 0], 0.14, yerr=heights[:, 1], color=colour, label=name
    )
  own = 100 * summary['own']['many'][0]
  left.axhline(own, color=canvas.INK, lw=1, zorder=1)
  left.set_xticks(counts)
  aligned = [row['merged'] for row in summary['many'][1:]]
  least = 100 * np.asarray(aligned)[..., 0].min()  # the first row is far below
  left.set_ylim(bottom=max(0, least - 3 * (101 - least) / 2), top=101)
  left.set_xlabel('networks in the mean')
  left.set_ylabel('test accuracy, %')
  right.set_xticks([0, 1], ['first and another', 'two others'])
  right.set_ylabel('barrier in test loss, nats')
  name, colour = STYLES['naive']
  right.plot([], [], '-o', color=colour, label=name)
  canvas.legend(right, 'aligned by')
  canvas.save(fig, path)
