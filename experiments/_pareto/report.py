"""Table, claims and figures of fronts."""

import pathlib
from typing import Any

import numpy as np

from experiments._run import canvas, console, spreads, verdicts

STYLES = {
  'random': ('random search', '#7f7f7f'),
  'map': ('MAP', '#e8871e'),
  'map_adaptive': ('MAP, adaptive', '#8c6d31'),
  'mm_mo': ('MM-MO', '#1f6fb4'),
  'no_mutants': ('without mutants', '#2a8c4a'),
  'no_screening': ('without screening', '#c2559d'),
  'ehvi': ('EHVI, without both', '#333333'),
  'own_reference': ('its own reference', '#6fa8dc'),
  'mm_mo_dare_ties': ('MM-MO on DARE-TIES', '#c23b3b'),
}
# A method and one that its paper says it is better than.
_CLAIMS = (
  ('map', 'random'),
  ('mm_mo', 'random'),
  ('mm_mo', 'map'),
  ('map_adaptive', 'map'),
  ('mm_mo', 'no_mutants'),
  ('mm_mo', 'no_screening'),
  ('mm_mo', 'ehvi'),
  ('ehvi', 'map'),
  ('mm_mo', 'own_reference'),
  ('mm_mo_dare_ties', 'mm_mo'),
)


def summarise(
  grids: dict[str, Any], results: dict[str, dict[str, Any]]
) -> dict[str, Any]:
  """Summarises the fronts.

  Args:
    grids: by group, from ``runs.exhaustive``.
    results: by group and method, from ``runs.measure`` and ``runs.nested``.

  Returns:
    ``rows``: group, method, ``share`` of the hypervolume of the grid at each
    budget and ``test`` accuracy, each ``[mean, standard deviation]`` over
    seeds; ``predicted`` for MAP. ``claims``: whether one method has more volume
    than another at the last budget in every seed of every group, and by how
    much in each.
  """
  rows = []
  for group, methods in results.items():
    for method, found in methods.items():
      row = {
        'group': group,
        'method': method,
        'test': spreads.spread(1 - np.asarray(found['test'])),
      }
      if 'share' in found:
        row['share'] = spreads.columns(found['share'])
      if 'predicted' in found:
        row['predicted'] = spreads.spread(found['predicted'])
      rows.append(row)
    accuracies = 1 - np.asarray(grids[group]['experts'])
    rows.append(
      {'group': group, 'method': 'experts', 'test': spreads.spread(accuracies)}
    )
  gains = [
    (f'{_name(better)} above {_name(other)}', np.stack(by))
    for better, other in _CLAIMS
    if (by := [_gains(x, better, other) for x in results.values()])
    and all(x is not None for x in by)
  ]
  return {'rows': rows, 'claims': verdicts.judge(gains)}


def _gains(methods: dict[str, Any], better: str, other: str) -> Any:
  """Returns by how much volume a method is better in each seed, or None."""
  if better not in methods or other not in methods:
    return None
  last = lambda name: np.asarray(methods[name]['share'])[:, -1]
  return last(better) - last(other)


def show(label: str, summary: dict[str, Any], budgets: tuple[int, ...]) -> None:
  """Prints the table and the verdicts on the claims."""
  sections: dict[str, list[Any]] = {}
  for row in summary['rows']:
    shares = row.get('share', [[np.nan, 0.0]] * len(budgets))
    means = [f'{100 * x[0]:.1f}' for x in shares[:-1]]
    cells = [*means, spreads.percent(shares[-1])]
    cells = ['' if 'nan' in x else x for x in cells]
    whole = spreads.percent(row['predicted']) if 'predicted' in row else ''
    sections.setdefault(row['group'], []).append(
      (_short(row['group']), _name(row['method']), *cells, whole)
      + (spreads.percent(row['test']),)
    )
  lines = [
    f'{claim}: {_verdict(found["by"])}'
    for claim, found in summary['claims'].items()
  ]
  console.show_table(
    label,
    ('tasks', 'search', *map(str, budgets), 'predicted', 'test'),
    list(sections.values()),
    [
      'hypervolume after so many evaluations, % of that of a grid; predicted: '
      'of the whole front of the surrogate; test: accuracy of the merge of the '
      'best mean, %; ±: standard deviation over seeds.',
      *lines,
    ],
  )


def _name(method: str) -> str:
  return STYLES[method][0] if method in STYLES else method


def _short(group: str) -> str:
  """Returns the name of a group, or how many tasks it has."""
  tasks = group.split(' + ')
  return group if len(tasks) == 2 else f'{len(tasks)} tasks'


def _verdict(by: Any) -> str:
  """Returns in how many runs of groups and seeds a claim holds."""
  by = np.asarray(by)
  return (
    f'by {100 * by.mean():+.1f} points, in {(by > 0).sum()} of {by.size} runs'
  )


def draw_curves(
  path: pathlib.Path, results: dict[str, Any], budgets: tuple[int, ...]
) -> None:
  """Draws the hypervolume against the evaluations, a panel for each group."""
  fig, panels = canvas.grid(4.6 * len(results) + 2.8, 4.4, 1, len(results))
  for ax, (group, methods) in zip(panels[0], results.items()):
    for method, (name, colour) in STYLES.items():
      if method in methods:
        columns = spreads.columns(methods[method]['share'])
        mean, spread = 100 * np.asarray(columns).T
        canvas.curve(
          ax, budgets, mean, spread, colour=colour, label=name, alpha=0.06
        )
    canvas.heading(ax, _short(group))
    ax.set_xlabel('evaluations')
    ax.set_xticks(budgets)
  panels[0][0].set_ylabel("hypervolume, % of the grid's")
  canvas.legend(panels[0][-1], 'search')
  canvas.save(fig, path)


def draw_fronts(
  path: pathlib.Path, grids: dict[str, Any], results: dict[str, Any]
) -> None:
  """Draws the fronts of the first seed, a panel for each group of two tasks."""
  pairs = [group for group in results if len(grids[group]['front'][0][0]) == 2]
  if not pairs:
    return
  fig, panels = canvas.grid(4.6 * len(pairs) + 2.8, 4.4, 1, len(pairs))
  for ax, group in zip(panels[0], pairs):
    inner = 100 * np.asarray(grids[group]['inner'][0])
    ax.plot(*inner.T, '.', color='#dddddd', ms=4, label='grid', zorder=1)
    front = 100 * np.asarray(grids[group]['front'][0])
    ax.step(*front.T, where='post', color='#999999', lw=1.5, label='its front')
    for method in ('random', 'map', 'mm_mo', 'ehvi'):
      if method in results[group]:
        name, colour = STYLES[method]
        found = 100 * np.asarray(results[group][method]['front'][0])
        ax.plot(*found.T, 'o', color=colour, ms=6, label=name, zorder=3)
    first, second = group.split(' + ')
    ax.set(xlabel=f'error on {first}, %', ylabel=f'error on {second}, %')
    ax.set(xscale='log', yscale='log')
    for axis in (ax.xaxis, ax.yaxis):
      low, high = axis.get_view_interval()
      axis.set_ticks([x for x in (1, 2, 5, 10, 20, 50) if low <= x <= high])
      axis.set_major_formatter('{x:g}')
      axis.set_minor_formatter('')
  canvas.legend(panels[0][-1], 'validation, first seed')
  canvas.save(fig, path)
