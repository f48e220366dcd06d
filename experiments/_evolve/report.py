"""Table, claims and figure of evolved networks."""

import pathlib
from typing import Any

import numpy as np

from experiments._run import canvas, console, spreads, verdicts

STYLES = {
  'm2n2': ('M2N2', '#1f6fb4'),
  'no_attraction': ('without attraction', '#e8871e'),
  'no_split': ('without a split', '#2a8c4a'),
  'no_crossover': ('without crossover', '#8c6d31'),
  'genetic': ('without niches and attraction', '#c2559d'),
  'cmaes': ('CMA-ES, diagonal', '#7f7f7f'),
  'line': ('best point of the line', '#333333'),
}
TITLES = {'scratch': 'From scratch', 'experts': 'From two experts'}


def summarise(results: dict[str, Any]) -> dict[str, Any]:
  """Summarises the curves.

  Args:
    results: by start and method, from ``runs.measure``.

  Returns:
    ``rows``: start, method, final accuracy on training and test images, each
    ``[mean, standard deviation]`` over runs; ``claims``: for each start and
    other method, whether M2N2 tests better in every run, and by how much.
  """
  rows, gains = [], []
  last = lambda found, split: np.asarray(found[split])[:, -1]
  for start, methods in results.items():
    for method, found in methods.items():
      rows.append(
        {
          'start': start,
          'method': method,
          'train': spreads.spread(last(found, 'train')),
          'test': spreads.spread(last(found, 'test')),
        }
      )
      if method != 'm2n2' and 'm2n2' in methods:
        by = last(methods['m2n2'], 'test') - last(found, 'test')
        gains.append((f'{start}: M2N2 above {STYLES[method][0]}', by))
  return {'rows': rows, 'claims': verdicts.judge(gains)}


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the table and the verdicts on the claims."""
  sections: dict[str, list[Any]] = {}
  for row in summary['rows']:
    sections.setdefault(row['start'], []).append(
      (
        TITLES[row['start']],
        STYLES[row['method']][0],
        spreads.percent(row['train']),
        spreads.percent(row['test']),
      )
    )
  judged = [
    f'{claim}: {verdicts.word(found["by"], each="run")}'
    for claim, found in summary['claims'].items()
  ]
  console.show_table(
    label,
    ('start', 'method', 'training images', 'test images'),
    list(sections.values()),
    ['accuracy, %; ±: standard deviation over runs.', *judged],
  )


def draw(path: pathlib.Path, results: dict[str, Any]) -> None:
  """Draws test accuracy against forward passes, a panel for each start."""
  fig, panels = canvas.grid(5.4 * len(results) + 2.6, 4.4, 1, len(results))
  for ax, (start, methods) in zip(panels[0], results.items()):
    for method, found in methods.items():
      name, colour = STYLES[method]
      mean, spread = 100 * np.asarray(spreads.columns(found['test'])).T
      x = found['evaluations'][0]
      canvas.curve(ax, x, mean, spread, colour=colour, label=name, marker='')
    canvas.heading(ax, TITLES[start])
    ax.set_xlabel('forward passes over the training images')
  panels[0][0].set_ylabel('test accuracy, %')
  last = panels[0][-1]
  used = {m for methods in results.values() for m in methods}
  drawn = set(last.get_legend_handles_labels()[1])
  for method, (name, colour) in STYLES.items():
    if method in used and name not in drawn:
      last.plot([], [], color=colour, lw=2, label=name)
  canvas.legend(last, 'method')
  canvas.save(fig, path)
