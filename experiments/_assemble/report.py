"""Tables and figures of networks that were assembled from parts."""

import pathlib
from typing import Any

import ml_collections
import numpy as np

from experiments._assemble import settings
from experiments._run import canvas, console

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
  """Puts everything that was measured into rows.

  Args:
    config: the run's.
    results: by method, what it found at each budget, by ``f'{budget:g}'``; the
      last one for all fractions of the data, the others for all data.
    zoo: what ``_reassembled.measure`` found, seed by seed.

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
            stage: _spread(split['test'][-1])
            for stage, split in one['found'].items()
          },
          'held_out': _spread(one['found']['network']['held_out'][-1]),
        }
      )
    for i, fraction in enumerate(config.fractions):
      tested = found['1']['found']['network']['test'][i]
      row = {'method': name, 'fraction': fraction, 'test': _spread(tested)}
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
  """Returns by how many points incubation is above, at equal compute."""

  def gap(budget: float, row: int) -> dict[str, Any]:
    ours, theirs = (
      results[name][f'{budget:g}']['found']['network']['test'][row]
      for name in ('incubation', 'end_to_end')
    )
    points = 100 * (np.asarray(ours) - np.asarray(theirs))
    return {
      'points': _spread(points),
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
      row = {key: _spread([one[key] for one in own]) for key in keys}
      rows.append({'kind': part, 'name': name, **row})
      if part == 'choices':
        rows[-1]['pieces'] = [one['pieces'] for one in own]
  return rows


def _spread(values: Any) -> list[float]:
  x = np.asarray(values, np.float64)
  return [float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else 0.0]


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the tables."""
  percent = lambda x: f'{100 * x[0]:.1f} ± {100 * x[1]:.1f}' if x else ''
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
            percent(row['test'].get(stage))
            for stage in ('meta', 'assembled', 'network')
          ),
        )
        for row in summary['budgets']
        if row['method'] == method
      ]
      for method in STYLES
    ],
    [
      'accuracy, %, ±: standard deviation over seeds; compute in that of the '
      'whole training: used by all jobs, by the longest jobs if modules train '
      'side by side, and by the one program that ran here.'
    ],
  )
  fractions = sorted({row['fraction'] for row in summary['data']})
  tested: dict[str, list[str]] = {method: [] for method in STYLES}
  for row in summary['data']:
    tested[row['method']].append(percent(row['test']))
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
  percent = lambda x: f'{100 * x[0]:.1f} ± {100 * x[1]:.1f}' if x else ''
  line = lambda row: (
    CHOICES.get(row['name'], row['name']),
    f'{row["flops"][0] / 1000:.0f}',
    percent(row.get('test', row.get('joined'))),
    percent(row.get('fine_tuned')),
    percent(row.get('from_nothing')),
  )
  console.show_table(
    f'{label}: reassembly of a zoo',
    ('network', 'kFLOPs', 'as it is', 'fine-tuned', 'from nothing'),
    [
      [line(row) for row in rows if row['kind'] == part]
      for part in ('networks', 'choices')
    ],
    [
      'test accuracy, %; as it is: joined by least squares; from nothing: the '
      'same network drawn anew and trained for as many steps as fine-tuning '
      'takes.'
    ],
  )


def draw(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws accuracy against compute, and against the number of images.

  Args:
    path: the file to write.
    summary: from ``summarise``.
  """
  fig, panels = canvas.grid(11.5, 4.6, 1, 2)
  left, right = panels[0]
  for method, (name, colour) in STYLES.items():
    own = [row for row in summary['budgets'] if row['method'] == method]
    mean, spread = 100 * np.asarray([row['test']['network'] for row in own]).T
    _line(left, [row['jobs'] for row in own], mean, spread, name, colour)
    if method == 'incubation':
      left.plot(
        [row['longest'] for row in own],
        mean,
        'o:',
        color=colour,
        mfc='white',
        label=f'{name}, modules side by side',
      )
    data = [row for row in summary['data'] if row['method'] == method]
    mean, spread = 100 * np.asarray([row['test'] for row in data]).T
    percent = [100 * row['fraction'] for row in data]
    _line(right, percent, mean, spread, name, colour)
  left.set_xlabel('training compute, in that of all steps end to end')
  left.set_ylabel('test accuracy, %')
  left.set_xlim(left=0)
  right.set_xscale('log')
  right.set_xticks(percent, [f'{x:g}' for x in percent])
  right.minorticks_off()
  right.set_xlabel('training images, %, at the full budget')
  left.legend(frameon=False, fontsize=11, labelcolor=canvas.INK)
  canvas.save(fig, path)


def _line(
  ax: Any, x: list[float], mean: Any, spread: Any, name: str, colour: str
) -> None:
  ax.plot(x, mean, '-o', color=colour, lw=2, label=name)
  ax.fill_between(
    x, mean - spread, mean + spread, color=colour, alpha=0.12, lw=0
  )
