"""Tables and claims of depth surgery."""

from typing import Any

import numpy as np

from experiments._depth_surgery import claims, settings
from experiments._run import console, spreads, verdicts

GROWN = {
  'scratch': 'from scratch',
  'stack': 'stacked whole (G_stack)',
  'each': 'each block repeated',
  'identity': 'identity blocks (G_zero)',
}


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
    target of the search, with spreads over seeds; ``speedups`` of growth;
    ``claims``: verdicts.
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
  return {
    'rows': rows,
    'after': after,
    'speedups': claims.speedups(results['growth']),
    'deep': spreads.spread(results['cuts']['deep']),
    'claims': claims.judge(setting.config.depth, results),
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
    for name in claims.CUT
    if name in found
  ]


def _path_rows(depth: int, found: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns a row for each target of the search."""
  rows = []
  for name, seeds in found.items():
    shares = [claims.shares(depth, x) for x in seeds]
    rows.append(
      {
        'section': 'paths',
        'name': name,
        **{k: spreads.spread([x[k] for x in shares]) for k in shares[0]},
      }
    )
  return rows


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
    [
      'budgets in steps of the deep network; ±: over seeds.',
      'further compute that networks from scratch need for their last loss: '
      + '; '.join(
        f'{GROWN[name]} {", ".join(_percent(x) for x in by)}'
        for name, by in summary['speedups'].items()
      ),
    ],
  )
  console.show_table(
    f'{label}: cuts of networks of {text(summary["deep"])}',
    ('cut', 'layers', 'parameters', 'cut', 'after training'),
    [
      [
        (
          claims.CUT[row['name']],
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


def _percent(gain: float | None) -> str:
  """Formats a speed-up."""
  return 'unknown' if gain is None else f'{100 * gain:+.0f} %'


_SHARES = ('base', 'found', 'shortened', 'corrected')
