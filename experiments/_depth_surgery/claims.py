"""Claims on growth, cuts and paths, judged seed by seed."""

from typing import Any

import numpy as np

from experiments._depth_surgery import paths
from experiments._run import verdicts

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


def judge(depth: int, results: dict[str, Any]) -> dict[str, dict[str, Any]]:
  """Judges all claims.

  Args:
    depth: of the networks.
    results: of ``growth.measure`` by budget, ``cuts.measure`` and
      ``paths.measure``.

  Returns:
    The verdicts, see ``verdicts.judge``.
  """
  return verdicts.judge(
    [
      *_growth_claims(results['growth']),
      *_cut_claims(results['cuts']),
      *_path_claims(depth, results['paths']),
    ]
  )


def speedups(found: dict[str, Any]) -> dict[str, list[Any]]:
  """Returns how much more compute networks from scratch need, by program.

  The compute at which a grown network reaches the last loss of one from scratch
  is interpolated between budgets, in the logarithm of the compute.

  Args:
    found: of ``growth.measure`` by budget.

  Returns:
    For each program and seed ``C_scratch / C_grown - 1``; None where no
    budget reaches that loss, or all do.
  """
  ordered = [found[budget] for budget in sorted(found, key=int)]
  last = ordered[-1]
  grown = np.log([one['compute'][1] for one in ordered])
  result = {}
  for name in last['programs']:
    bits = np.asarray([one['programs'][name]['bits'] for one in ordered])
    # The loss falls with the compute: reversed, it rises as np.interp needs.
    reached = [
      np.interp(goal, bits[::-1, s], grown[::-1], left=np.nan, right=np.nan)
      for s, goal in enumerate(last['scratch'])
    ]
    ratio = last['compute'][0] / np.exp(reached)
    result[name] = [None if np.isnan(x) else float(x) - 1 for x in ratio]
  return result


def shares(depth: int, one: dict[str, Any]) -> dict[str, float]:
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
  found_shares = {
    name: [shares(depth, x) for x in seeds] for name, seeds in found.items()
  }
  of = lambda name, what: np.asarray([x[what] for x in found_shares[name]])
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
