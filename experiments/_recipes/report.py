"""Table, claims and figures of searches over recipes."""

from collections.abc import Iterator
import pathlib
from typing import Any

from matplotlib import axes
import numpy as np

from experiments._recipes import settings
from experiments._run import canvas, console, spreads, verdicts

_STYLES = {
  'random': ('random search', '#1f6fb4', '-'),
  'cmaes': ('CMA-ES', '#e8871e', '-'),
  'grid': ('grid', '#2a8c4a', '--'),
}


def summarise(
  setting: settings.Setting, results: dict[str, dict[str, Any]]
) -> dict[str, Any]:
  """Summarises the searches.

  Args:
    setting: with the recipes.
    results: from ``searches.measure``, by recipe and search.

  Returns:
    ``rows``: recipe, search, number of numbers, and the accuracy of the best
    point on ``validation`` and ``test``, each ``[mean, standard deviation]``
    over seeds; the best point of each seed. ``claims``: whether one search or
    recipe is above another in every seed on test images, by how much.
  """
  rows = [
    {
      'recipe': name,
      'search': method,
      'numbers': len(setting.recipes[name].lower),
      'validation': spreads.spread(_last(found, 'validation')),
      'test': spreads.spread(_last(found, 'test')),
      'best': found['best'],
    }
    for name, methods in results.items()
    for method, found in methods.items()
  ]
  return {'rows': rows, 'claims': verdicts.judge(gains(results))}


def _last(found: dict[str, Any], split: str) -> np.ndarray:
  """Returns the accuracy of the best point at the end, ``[S]``."""
  return np.asarray(found[split])[:, -1]


def gains(results: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
  """Yields claims and the gain of each seed on test images."""
  for name, methods in results.items():
    for other in ('random', 'grid'):
      if 'cmaes' in methods and other in methods:
        gain = _last(methods['cmaes'], 'test') - _last(methods[other], 'test')
        yield f'{name}: CMA-ES above {_STYLES[other][0]}', gain
  first, *others = results
  for name in others:
    for method in results[name]:
      gain = _last(results[name][method], 'test')
      gain = gain - _last(results[first][method], 'test')
      yield f'{name} above {first} by {_STYLES[method][0]}', gain


def show(
  label: str, setting: settings.Setting, summary: dict[str, Any]
) -> None:
  """Prints the table and the verdicts on the claims."""
  sections: dict[str, list[tuple[str, ...]]] = {}
  for row in summary['rows']:
    sections.setdefault(row['recipe'], []).append(
      (
        setting.recipes[row['recipe']].method.name,
        str(row['numbers']),
        _STYLES[row['search']][0],
        spreads.percent(row['validation']),
        spreads.percent(row['test']),
      )
    )
  notes = [
    'accuracy of the best point, %; ±: standard deviation over seeds.',
    'In points of test accuracy, by seed:',
  ]
  notes += verdicts.lines(summary['claims'], factor=100)
  console.show_table(
    label,
    ('recipe', 'numbers', 'search', 'validation', 'test'),
    list(sections.values()),
    notes,
  )


def curves(
  path: pathlib.Path, setting: settings.Setting, results: dict[str, Any]
) -> None:
  """Draws test accuracy against evaluations, a panel for each recipe."""
  width = 3.4 * len(results) + 2.2
  fig, panels = canvas.grid(width, 4.2, 1, len(results), share=True)
  for ax, (name, methods) in zip(panels[0], results.items()):
    for method, found in methods.items():
      title, colour, ls = _STYLES[method]
      mean, spread = 100 * np.asarray(spreads.columns(found['test'])).T
      x = found['evaluations']
      canvas.curve(
        ax, x, mean, spread, colour=colour, ls=ls, label=title, marker=''
      )
    size = len(setting.recipes[name].lower)
    numbers = 'number' if size == 1 else 'numbers'
    canvas.heading(ax, f'{name}: {size} {numbers}')
    ax.set_xlabel('evaluations')
  panels[0][0].set_ylabel('test accuracy of the best point, %')
  canvas.legend(panels[0][-1], 'search')
  canvas.save(fig, path)


def maps(
  path: pathlib.Path, setting: settings.Setting, results: dict[str, Any]
) -> None:
  """Draws validation accuracy over the box of each recipe of two numbers.

  The map is the mean over seeds of the points of the grid, or all points
  without a grid; marks are the best points of each seed.

  Args:
    path: of the figure; none is drawn without such a recipe.
    setting: with the recipes.
    results: by recipe and search.
  """
  flat = [
    (name, methods)
    for name, methods in results.items()
    if len(setting.recipes[name].lower) == 2
  ]
  if not flat:
    return
  fig, panels = canvas.grid(6.6 * len(flat), 4.6, 1, len(flat))
  for ax, (name, methods) in zip(panels[0], flat):
    _map(fig, ax, setting.recipes[name], methods)
  canvas.save(fig, path)


def _map(
  fig: Any, ax: axes.Axes, recipe: settings.Recipe, methods: dict[str, Any]
) -> None:
  """Draws one map: contours of all evaluations, and the best points."""
  drawn = [methods['grid']] if 'grid' in methods else [*methods.values()]
  points = np.concatenate([np.concatenate(x['asked']) for x in drawn])
  values = np.concatenate([np.concatenate(x['found']) for x in drawn])
  # A point of the grid has one value of each seed, in another order.
  unique, index = np.unique(points, axis=0, return_inverse=True)
  mean = np.bincount(index.ravel(), values) / np.bincount(index.ravel())
  image = ax.tricontourf(
    unique[:, 0], unique[:, 1], 100 * mean, levels=14, cmap='YlGnBu'
  )
  fig.colorbar(image, ax=ax, label='validation accuracy, %')
  for method, found in methods.items():
    title, colour, _ = _STYLES[method]
    ax.plot(
      *np.asarray(found['best']).T,
      linestyle='',
      marker='o',
      color=colour,
      markeredgecolor='white',
      markersize=8,
      clip_on=False,
      zorder=3,
      label=f'best of {title}',
    )
  first, second = recipe.labels()
  ax.set_xlabel(first)
  ax.set_ylabel(second)
  ax.grid(visible=False)
  canvas.heading(ax, recipe.method.name)
  ax.legend(loc='upper right', fontsize=10)
