"""Tables of all settings, and of the claims."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._run import console, spreads
from experiments._shared import suites

TITLES = {
  'base': 'base',
  'experts': 'experts',
  'searched': 'searched task arithmetic',
  'isotropic': 'learned isotropic',
  'anisotropic': 'aTLAS',
  'tangent_searched': 'searched, tangent',
  'tangent_anisotropic': 'aTLAS, tangent',
  'adamerging_task': 'AdaMerging task-wise',
  'adamerging_leaf': 'AdaMerging layer-wise',
  'adamerging_plus': 'AdaMerging++',
  'entropy': 'entropy, one target',
  'ufm': 'UFM, one target',
  'partition': 'aTLAS x {cells}',
  'probe': 'linear probe',
  'tip': 'Tip-Adapter',
  'lp': 'LP++',
  'anisotropic_tip': 'aTLAS + Tip-Adapter',
  'anisotropic_lp': 'aTLAS + LP++',
  'lora': 'LoRA',
  'lora_partition': 'LoRA, as aTLAS x {cells}',
  'full': 'fine-tuning',
}


def title(name: str, config: Any) -> str:
  """Returns the title of a method in tables and figures."""
  if name in TITLES:
    return TITLES[name].format(cells=config.few_shot.cells)
  kind, _, cells = name.rpartition('x')
  if cells == 'full':
    return 'aTLAS, each entry'
  return f'LoRA, as aTLAS x {cells}' if kind else f'aTLAS x {cells}'


def rows(
  suite: suites.Suite, bounds: dict[str, Any], results: dict[str, Any]
) -> list[dict[str, Any]]:
  """Summarises the measurements.

  Args:
    suite: tasks and model.
    bounds: accuracies ``[S, T]`` of base and experts.
    results: measurements by setting and method.

  Returns:
    A dict for each setting, method and number of shots: ``test``, mean and
    standard deviation over seeds of the mean over tasks; ``normalised``, the
    same relative to the experts; ``trained``; and further values of the
    setting. All but ``trained`` and ``shots`` are percentages.
  """
  experts = np.asarray(bounds['experts']['test'])
  found = [
    _row('bounds', name, bounds[name]['test'], experts) for name in bounds
  ]
  for setting, methods in results.items():
    if setting == 'negation':
      found += _negated(suite, bounds, methods)
      continue
    for name, one in methods.items():
      extra = {'trained': one['trained'], 'note': one.get('note', '')}
      if setting in ('few_shot', 'partition'):
        for shots, test in zip(one['shots'], one['test']):
          row = _row(setting, name, test, experts)
          found.append({**row, **extra, 'shots': shots})
        continue
      row = {**_row(setting, name, one['test'], experts), **extra}
      if 'disentanglement' in one:
        error = 100 * np.asarray(one['disentanglement'])
        row['disentanglement'] = spreads.spread(error)
      found.append(row)
  for row in found:
    row['title'] = title(row['method'], suite.config)
    row['transductive'] = row['setting'] == 'test_time'
  return found


def _row(
  setting: str, name: str, test: Any, experts: np.ndarray
) -> dict[str, Any]:
  """Returns a row with accuracies, absolute and relative to the experts."""
  accuracy = np.asarray(test)
  ratios = accuracy / np.maximum(experts, 1e-9)
  return {
    'setting': setting,
    'method': name,
    'test': spreads.spread(100 * accuracy.mean(1)),
    'normalised': spreads.spread(100 * ratios.mean(1)),
    'by_task': (100 * accuracy.mean(0)).tolist(),
  }


def _negated(
  suite: suites.Suite, bounds: dict[str, Any], methods: dict[str, Any]
) -> list[dict[str, Any]]:
  """Returns the rows of negation, with accuracies of targets and control."""
  names = suite.tasks.names
  control = names.index(suite.config.negation.control)
  base = np.asarray(bounds['base']['test'])
  targets = np.delete(base, control, 1)
  pairs = {
    'base': (targets, np.repeat(base[:, [control]], targets.shape[1], 1))
  }
  for name, one in methods.items():
    pairs[name] = tuple(np.moveaxis(np.asarray(one['test']), 2, 0))
  return [
    {
      'setting': 'negation',
      'method': name,
      'test': spreads.spread(100 * target.mean(1)),
      'control': spreads.spread(100 * held.mean(1)),
      'by_task': (100 * target.mean(0)).tolist(),
      'trained': methods[name]['trained'] if name in methods else 0,
    }
    for name, (target, held) in pairs.items()
  ]


def show(
  title: str, rows: list[dict[str, Any]], claims: list[dict[str, Any]]
) -> None:
  """Prints a table for each setting, and the claims."""
  of = lambda setting: [row for row in rows if row['setting'] == setting]
  bounds = [_line(row, ('normalised',)) for row in of('bounds')]
  for setting in ('addition', 'test_time'):
    if of(setting):
      console.show_table(
        f'{title}: {setting}',
        ('method', 'test %', 'norm. %', 'disentangl. error %', 'numbers'),
        [
          [[*line, '', ''] for line in bounds],
          [
            [*_line(row, ('normalised', 'disentanglement')), _trained(row)]
            for row in of(setting)
          ],
        ],
        _NOTES[setting],
      )
  if of('negation'):
    console.show_table(
      f'{title}: negation',
      ('method', 'target %', 'control %', 'numbers'),
      [[[*_line(row, ('control',)), _trained(row)] for row in of('negation')]],
      _NOTES['negation'],
    )
  for setting in ('few_shot', 'partition'):
    if of(setting):
      shots = sorted({row['shots'] for row in of(setting)})
      console.show_table(
        f'{title}: {setting}',
        ('method', 'numbers', *(f'{k} shots' for k in shots)),
        [_by_shots(of(setting), shots)],
        _NOTES[setting],
      )
  if claims:
    console.show_table(
      f'{title}: claims',
      ('claim', 'here', 'difference', 'paper', 'verdict'),
      [[_claim(one) for one in claims]],
      _NOTES['claims'],
    )


_NOTES = {
  'addition': [
    '±: standard deviation over seeds; norm.: accuracy relative to the expert, '
    'mean over tasks; error: of pairs of vectors, on test images; numbers: of '
    'parameters.',
  ],
  'test_time': [
    'learned on unlabelled test images (transductive); UFM and entropy use the '
    "other tasks' vectors only, AdaMerging all.",
  ],
  'negation': [
    'mean over targets; selected on validation images: the lowest target '
    "accuracy that keeps the share of the base's accuracy on the control.",
  ],
  'few_shot': [
    'test %, mean over targets, ± over seeds; no validation image is used.'
  ],
  'partition': [
    'test %, mean over targets, ± over seeds; no validation image is used.'
  ],
  'claims': [
    'holds: in every seed; here: the two means, %; difference: ± over seeds.'
  ],
}


def _line(row: dict[str, Any], keys: Sequence[str]) -> list[str]:
  """Formats title, test accuracy and further spreads."""
  return [
    row['title'],
    spreads.text(row['test']),
    *(spreads.text(row[key]) if key in row else '' for key in keys),
  ]


def _trained(row: dict[str, Any]) -> str:
  return f'{row["trained"]:,}' if row.get('trained') else ''


def _by_shots(
  rows: list[dict[str, Any]], shots: Sequence[int]
) -> list[list[str]]:
  """Returns a line for each method, a column for each number of shots."""
  at = {(row['method'], row['shots']): row for row in rows}
  names = list(dict.fromkeys(row['method'] for row in rows))
  return [
    [
      at[name, shots[0]]['title'],
      _trained(at[name, shots[0]]),
      *(spreads.text(at[name, k]['test']) for k in shots),
    ]
    for name in names
  ]


def _claim(one: dict[str, Any]) -> list[str]:
  """Formats a claim and its verdict."""
  high, low = one['here']
  return [
    one['claim'],
    f'{high:.1f} : {low:.1f}',
    f'{one["mean"]:+.1f} ± {one["std"]:.1f}',
    one['paper'],
    one['verdict'],
  ]
