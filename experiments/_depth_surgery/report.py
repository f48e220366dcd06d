"""Tables and claims of depth surgery."""

from typing import Any

import numpy as np

from experiments._depth_surgery import paths, settings
from experiments._run import console, spreads, verdicts

GROWN = {
  'scratch': 'from scratch',
  'stack': 'stacked whole (G_stack)',
  'each': 'each block repeated',
  'identity': 'identity blocks (G_zero)',
}
CUT = {
  'crash': 'CRaSh',
  'fold': 'gates (FoldGPT)',
  'last': 'the last left out',
  'best': 'best by validation',
  'scratch': 'random weights',
  'stepwise': 'shared, stepwise',
  'stepwise_rank': 'shared, stepwise, low rank',
  'average': 'shared, average',
  'average_rank': 'shared, average, low rank',
  'fold_tied': 'shared in pairs (FoldGPT)',
  'parallel': 'pairs in parallel',
}


# A cut and one that its paper, or its cost, says it is better than.
_BELOW = (
  ('fold', 'crash'),
  ('fold', 'last'),
  ('crash', 'last'),
  ('crash', 'scratch'),
  ('stepwise', 'average'),
  ('average_rank', 'stepwise_rank'),
  ('stepwise_rank', 'stepwise'),
  ('average_rank', 'average'),
)


def summarise(
  setting: settings.Setting, results: dict[str, Any]
) -> dict[str, Any]:
  """Summarises the measurements.

  Args:
    setting: of the run.
    results: of ``growth.measure`` by budget, ``cuts.measure`` and
      ``paths.measure``.

  Returns:
    ``rows``: a dict for each way of growth and budget, each cut, and each
    target of the search, with spreads over seeds; ``claims``: verdicts.
  """
  rows = [
    *_growth_rows(results['growth']),
    *_cut_rows(results['cuts']),
    *_path_rows(setting.config.depth, results['paths']),
  ]
  after = {
    name: np.mean([x['after'] for x in found], 0).tolist()
    for name, found in results['paths'].items()
  }
  gains = [
    *_growth_claims(results['growth']),
    *_cut_claims(results['cuts']),
    *_path_claims(setting.config.depth, results['paths']),
  ]
  return {
    'rows': rows,
    'after': after,
    'deep': spreads.spread(results['cuts']['deep']),
    'claims': verdicts.judge(gains),
  }


def _growth_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns a row for each budget and way of growth."""
  rows = []
  for budget, one in found.items():
    base = {'section': 'growth', 'budget': int(budget)}
    compute = one['compute']
    rows.append(
      {
        **base,
        'name': 'scratch',
        'compute': compute[0],
        'bits': spreads.spread(one['scratch']),
      }
    )
    for name, grown in one['programs'].items():
      rows.append(
        {
          **base,
          'name': name,
          'compute': compute[1],
          'grown': spreads.spread(grown['grown']),
          'bits': spreads.spread(grown['bits']),
        }
      )
  return rows


def _cut_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns a row for each cut."""
  return [
    {
      'section': 'cuts',
      'name': name,
      'parameters': found[name]['parameters'],
      'layers': found[name]['layers'],
      'cut': spreads.spread(found[name]['cut']),
      'trained': spreads.spread(found[name]['trained'])
      if 'trained' in found[name]
      else None,
    }
    for name in CUT
    if name in found
  ]


def _path_rows(depth: int, found: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns a row for each target of the search."""
  rows = []
  for name, seeds in found.items():
    shares = [_shares(depth, x) for x in seeds]
    rows.append(
      {
        'section': 'paths',
        'name': name,
        **{k: spreads.spread([x[k] for x in shares]) for k in shares[0]},
      }
    )
  return rows


def _shares(depth: int, one: dict[str, Any]) -> dict[str, float]:
  """Returns shares of windows: right, found, shortened, corrected."""
  base = np.asarray(one['base']) == 1
  shortest = np.asarray(one['shortest'])
  found = np.asarray(one['found'])
  mean = lambda x: float(np.mean(x)) if len(x) else 0.0
  return {
    'base': mean(base),
    'found': mean(found),
    'shortened': mean(shortest[base] < depth),
    'corrected': mean(found[~base]),
  }


def _growth_claims(found: dict[str, Any]) -> list[tuple[str, Any]]:
  """Compares ways of growth at the largest budget, and stacking at each."""
  gains = []
  for budget, one in found.items():
    stack = np.asarray(one['programs']['stack']['bits'])
    gains.append(
      (
        f'stacking below scratch at equal compute, {budget} steps',
        np.asarray(one['scratch']) - stack,
      )
    )
  last = found[max(found, key=int)]['programs']
  bits = {name: np.asarray(x['bits']) for name, x in last.items()}
  gains.append(('stacking below repeated blocks', bits['each'] - bits['stack']))
  gains.append(
    ('stacking below identity blocks', bits['identity'] - bits['stack'])
  )
  return gains


def _cut_claims(found: dict[str, Any]) -> list[tuple[str, Any]]:
  """Compares cuts, before and after the training."""
  return [
    (
      f'{CUT[better]} below {CUT[other]}, {when}',
      np.asarray(found[other][when]) - np.asarray(found[better][when]),
    )
    for better, other in _BELOW
    if better in found and other in found
    for when in ('cut', 'trained')
  ]


def _path_claims(depth: int, found: dict[str, Any]) -> list[tuple[str, Any]]:
  """Judges the shares of the abstract, and the control."""
  shares = {
    name: [_shares(depth, x) for x in seeds] for name, seeds in found.items()
  }
  of = lambda name, what: np.asarray([x[what] for x in shares[name]])
  label, wrong = paths.TARGETS
  return [
    (
      'more than 75 % of right windows have a shorter right path (oracle)',
      of(label, 'shortened') - 0.75,
    ),
    (
      'more than 60 % of wrong windows have a right path (oracle)',
      of(label, 'corrected') - 0.6,
    ),
    (
      'right bytes are found more often than wrong ones',
      of(label, 'corrected') - of(wrong, 'corrected'),
    ),
  ]


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the tables and the verdicts."""
  pick = lambda part: [x for x in summary['rows'] if x['section'] == part]
  text = lambda pair: spreads.text(pair, digits=3) if pair else ''
  console.show_table(
    f'{label}: growth',
    ('network', 'budget', 'at growth', 'bits for each byte'),
    [
      [
        (
          GROWN[row['name']],
          f'{row["budget"]}',
          text(row.get('grown')),
          text(row['bits']),
        )
        for row in pick('growth')
      ]
    ],
    ['budgets in steps of the deep network; ±: over seeds.'],
  )
  console.show_table(
    f'{label}: cuts of networks of {text(summary["deep"])}',
    ('cut', 'layers', 'parameters', 'cut', 'after training'),
    [
      [
        (
          CUT[row['name']],
          f'{row["layers"]}',
          f'{row["parameters"]:,}',
          text(row['cut']),
          text(row['trained']),
        )
        for row in pick('cuts')
        if (row['name'] in settings.REMOVED) == removed
      ]
      for removed in (True, False)
    ],
    ['bits for each byte of test text.'],
  )
  console.show_table(
    f'{label}: paths',
    ('target', 'network', 'any path', 'shorter path', 'wrong corrected'),
    [
      [
        (row['name'], *(spreads.percent(row[k]) for k in row if k in _SHARES))
        for row in pick('paths')
      ]
    ],
    [
      'share of windows, %; an oracle: the search knows the target.',
      *verdicts.lines(summary['claims'], factor=100),
    ],
  )


_SHARES = ('base', 'found', 'shortened', 'corrected')
