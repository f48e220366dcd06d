"""Tables and a figure of networks assembled from parts.

Figures are written to ``path``; ``summary`` is from ``summarise``.
"""

import pathlib
from typing import Any

import ml_collections
import numpy as np

from experiments._assemble import settings
from experiments._run import canvas, console, spreads

STYLES = {
  'end_to_end': ('end to end', '#7f7f7f'),
  'incubation': ('Deep Incubation', '#1f6fb4'),
}
CHOICES = {
  'naswot': 'chosen by NASWOT',
  'held out': 'chosen by held-out accuracy',
  'random': 'chosen at random',
}


def summarise(
  config: ml_collections.ConfigDict,
  results: dict[str, dict[str, Any]],
  zoo: list[dict[str, Any]],
) -> dict[str, Any]:
  """Summarises the measurements.

  Args:
    config: of the run.
    results: by method, its values at each budget, by ``f'{budget:g}'``; at the
      last one for all fractions of the data, at the others for all data.
    zoo: from ``dery.measure``, seed by seed.

  Returns:
    ``budgets`` and ``data``, a dict for each line, numbers as ``[mean, standard
    deviation]`` over seeds; ``claims``, incubation minus end to end, in points,
    and whether it is above 0 in every seed; ``zoo``.
  """
  unit = results['end_to_end']['1']['flops']['jobs']
  budgets, data = [], []
  for name, found in results.items():
    for budget in config.budgets:
      one = found[f'{budget:g}']
      budgets.append(
        {
          'method': name,
          'budget': budget,
          'steps': one['steps'],
          **{kind: value / unit for kind, value in one['flops'].items()},
          'test': {
            stage: spreads.spread(split['test'][-1])
            for stage, split in one['found'].items()
          },
          'held_out': spreads.spread(one['found']['network']['held_out'][-1]),
        }
      )
    for i, fraction in enumerate(config.fractions):
      tested = found['1']['found']['network']['test'][i]
      row = {
        'method': name,
        'fraction': fraction,
        'test': spreads.spread(tested),
      }
      data.append(row)
  return {
    'budgets': budgets,
    'data': data,
    'claims': _claims(config, results),
    'zoo': _zoo(zoo),
  }


def _claims(
  config: ml_collections.ConfigDict, results: dict[str, dict[str, Any]]
) -> dict[str, Any]:
  """Returns the advantage of incubation in points, at equal compute."""

  def gap(budget: float, row: int) -> dict[str, Any]:
    ours, theirs = (
      results[name][f'{budget:g}']['found']['network']['test'][row]
      for name in ('incubation', 'end_to_end')
    )
    points = 100 * (np.asarray(ours) - np.asarray(theirs))
    return {
      'points': spreads.spread(points),
      'in every seed': bool((points > 0).all()),
      'in no seed': bool((points <= 0).all()),
    }

  budgets = {f'budget {b:g}': gap(b, -1) for b in config.budgets}
  fractions = {
    f'data {f:g}': gap(1.0, i) for i, f in enumerate(config.fractions)
  }
  return {**budgets, **fractions}


def _zoo(zoo: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns a line for each network and each choice."""
  if not zoo:
    return []
  rows = []
  for part in ('networks', 'choices'):
    for name in zoo[0][part]:
      own = [seed[part][name] for seed in zoo]
      keys = [key for key in own[0] if key != 'pieces']
      row = {key: spreads.spread([one[key] for one in own]) for key in keys}
      rows.append({'kind': part, 'name': name, **row})
      if part == 'choices':
        rows[-1]['pieces'] = [one['pieces'] for one in own]
  return rows


def _percent(pair: list[float] | None) -> str:
  """Formats a spread in per cent; empty if there is none."""
  return spreads.percent(pair) if pair else ''


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the tables."""
  console.show_table(
    f'{label}: equal compute, all training images',
    ('method', 'budget', 'used', 'longest', 'run', 'meta', 'assembled', 'test'),
    [
      [
        (
          STYLES[row['method']][0],
          f'{row["budget"]:g}',
          *(f'{row[kind]:.2f}' for kind in settings.Step._fields),
          *(
            _percent(row['test'].get(stage))
            for stage in ('meta', 'assembled', 'network')
          ),
        )
        for row in summary['budgets']
        if row['method'] == method
      ]
      for method in STYLES
    ],
    [
      'accuracy, %, ±: standard deviation over seeds; compute relative to '
      'end-to-end training: of all jobs, of the longest jobs if modules train '
      'in parallel, and of the single program that ran here.'
    ],
  )
  fractions = sorted({row['fraction'] for row in summary['data']})
  tested: dict[str, list[str]] = {method: [] for method in STYLES}
  for row in summary['data']:
    tested[row['method']].append(_percent(row['test']))
  console.show_table(
    f'{label}: fewer training images, full budget',
    ('method', *(f'{100 * f:g} %' for f in fractions)),
    [[(STYLES[method][0], *found) for method, found in tested.items()]],
    [
      f'incubation minus end to end, {name}: {c["points"][0]:+.1f} ± '
      f'{c["points"][1]:.1f} points'
      + ', above in every seed' * c['in every seed']
      + ', above in no seed' * c['in no seed']
      for name, c in summary['claims'].items()
    ],
  )
  if summary['zoo']:
    _show_zoo(label, summary['zoo'])


def _show_zoo(label: str, rows: list[dict[str, Any]]) -> None:
  """Prints the table of the zoo."""
  line = lambda row: (
    CHOICES.get(row['name'], row['name']),
    f'{row["flops"][0] / 1000:.0f}',
    _percent(row.get('test', row.get('joined'))),
    _percent(row.get('fine_tuned')),
    _percent(row.get('from_nothing')),
  )
  console.show_table(
    f'{label}: reassembly of a zoo',
    ('network', 'kFLOPs', 'joined', 'fine-tuned', 'from scratch'),
    [
      [line(row) for row in rows if row['kind'] == part]
      for part in ('networks', 'choices')
    ],
    [
      'test accuracy, %; joined: by least squares, not trained; from scratch: '
      'the same network, reinitialised and trained for the steps of the '
      'fine-tuning.'
    ],
  )


def draw(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws accuracy against compute, and against the number of images."""
  fig, panels = canvas.grid(11.5, 4.6, 1, 2)
  left, right = panels[0]
  for method, (name, colour) in STYLES.items():
    own = [row for row in summary['budgets'] if row['method'] == method]
    mean, spread = 100 * np.asarray([row['test']['network'] for row in own]).T
    jobs = [row['jobs'] for row in own]
    canvas.curve(left, jobs, mean, spread, colour=colour, label=name)
    if method == 'incubation':
      left.plot(
        [row['longest'] for row in own],
        mean,
        'o:',
        color=colour,
        mfc='white',
        label=f'{name}, modules in parallel',
      )
    data = [row for row in summary['data'] if row['method'] == method]
    mean, spread = 100 * np.asarray([row['test'] for row in data]).T
    percent = [100 * row['fraction'] for row in data]
    canvas.curve(right, percent, mean, spread, colour=colour, label=name)
  left.set_xlabel('training compute, relative to end to end')
  left.set_ylabel('test accuracy, %')
  left.set_xlim(left=0)
  canvas.log_ticks(right, percent)
  right.set_xlabel('training images, %, at the full budget')
  left.legend(frameon=False, fontsize=11, labelcolor=canvas.INK)
  canvas.save(fig, path)
