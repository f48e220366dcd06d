"""The table of a family, and verdicts on claims."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._run import console, spreads
from experiments._stitch_family import joint, settings, training
from wsl import stitch

TITLES = {
  'anchors': 'anchors',
  'least_squares': 'stitches, least squares',
  'v1': 'SN-Net',
  'v2': 'SN-Netv2',
  'selected': 'SN-Net, stitches by similarity',
  'random': 'SN-Net, stitches at random',
  'alone': 'students, labels, cost in all',
  'distilled': 'students, distilled, cost in all',
  'distilled_each': 'students, distilled, cost each',
}


def summarise(
  setting: settings.Setting, results: dict[str, Any]
) -> dict[str, Any]:
  """Summarises the measurements.

  Args:
    setting: config, data and model.
    results: by part.

  Returns:
    ``levels``: FLOPs for one image; ``rows``: for each method, the number of
    networks, the FLOPs of its training relative to the last anchor, and at each
    level the test accuracy of the best network on held-out images within these
    FLOPs, ``[mean, standard deviation]`` over seeds; ``claims``.
  """
  flops = results['least_squares']['flops']
  levels = sorted([*flops['students'], *flops['v1'][: len(setting.depths)]])
  unit = _anchor_cost(setting, flops)[-1]
  rows, at = [], {}
  for name in TITLES:
    costs, seeds = pool(setting, results, name)
    at[name] = np.asarray(
      [_at_levels(levels, costs[s], seed) for s, seed in enumerate(seeds)]
    )
    spent = results[name]['flops'] if 'flops' in results.get(name, {}) else 0.0
    if name in ('anchors', 'least_squares'):
      spent = 0.0
    rows.append(
      {
        'method': name,
        'title': TITLES[name],
        'networks': len(costs[0]),
        'cost': spent / unit,
        'at': [spreads.spread(column) for column in at[name].T],
        'mean': spreads.spread(at[name].mean(1)),
      }
    )
  return {
    'levels': levels,
    'rows': rows,
    'anchor_cost': [x / unit for x in _anchor_cost(setting, flops)],
    'claims': _claims(setting, results, at),
  }


def pool(
  setting: settings.Setting, results: dict[str, Any], name: str
) -> tuple[list[np.ndarray], list[dict[str, np.ndarray]]]:
  """Returns costs and accuracies of the networks that a method provides.

  Students include the anchors, which are trained before them.
  """
  fits, seeds = results['least_squares'], range(setting.config.seeds)
  flops, first = fits['flops'], len(setting.depths)
  arrays = lambda found: [
    {k: np.asarray(v) for k, v in seed.items()} for seed in found
  ]
  before = [
    {k: v[:first] for k, v in seed.items()} for seed in arrays(fits['v1'])
  ]
  if name == 'anchors':
    return [np.asarray(flops['v1'][:first])] * len(seeds), before
  if name == 'least_squares':
    return [np.asarray(flops['v1'])] * len(seeds), arrays(fits['v1'])
  found = arrays(results[name]['seeds'])
  if name in ('v1', 'v2'):
    return [np.asarray(flops[name])] * len(seeds), found
  if name in joint.SELECTIONS:
    of = np.asarray(flops['candidates'])
    return [of[own] for own in results[name]['routes']], found
  costs = np.asarray([*flops['v1'][:first], *flops['students']])
  joined = [
    {k: np.concatenate([a[k], b[k]]) for k in a}
    for a, b in zip(before, found, strict=True)
  ]
  return [costs] * len(seeds), joined


def _at_levels(
  levels: Sequence[float], costs: np.ndarray, seed: dict[str, np.ndarray]
) -> list[float]:
  """Returns the test accuracy at each level; held-out images select."""
  found = []
  for level in levels:
    # A relative tolerance, since levels are themselves costs of networks.
    within = np.flatnonzero(costs <= level * (1 + 1e-9))
    best = within[np.argmax(seed['held_out'][within])]
    found.append(float(seed['test'][best]))
  return found


def _anchor_cost(
  setting: settings.Setting, flops: dict[str, Any]
) -> list[float]:
  """Returns the FLOPs of the training of each anchor."""
  steps = training.steps_of(setting, setting.config.training.epochs)
  return [
    steps * training.step_cost(setting, forward)
    for forward in flops['v1'][: len(setting.depths)]
  ]


def _claims(
  setting: settings.Setting, results: dict[str, Any], at: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
  """Returns the differences of all claims, seed by seed, with verdicts."""
  first = len(setting.depths)
  fits, v1 = results['least_squares'], results['v1']
  test = lambda seeds: np.asarray([seed['test'] for seed in seeds])
  stitched = lambda seeds: test(seeds)[:, first:].mean(1)
  middle = lambda name: at[name].mean(1)
  moved = test(v1['seeds'])[:, :first] - test(fits['v1'])[:, :first]
  found = {
    'joint training lifts stitches': stitched(v1['seeds'])
    - stitched(fits['v1']),
    'pooled least squares is above the mean of solutions': stitched(
      fits['pooled']
    )
    - stitched(fits['v1']),
    **{
      f'joint training lifts the anchor {name}': moved[:, i]
      for i, name in enumerate(setting.depths)
    },
    'SN-Net is above its anchors': middle('v1') - middle('anchors'),
    'SN-Netv2 is above SN-Net': middle('v2') - middle('v1'),
    'SN-Net is above students of its cost in all': middle('v1')
    - middle('distilled'),
    'SN-Net is above students of its cost each': middle('v1')
    - middle('distilled_each'),
    'distillation is above labels alone': middle('distilled') - middle('alone'),
    'similar stitches, trained, are above random ones': stitched(
      results['selected']['seeds']
    )
    - stitched(results['random']['seeds']),
  }
  for name in settings.MEASURES:
    found[f'untrained: stitches chosen by {name} are above random ones'] = (
      selection(setting, fits, name)
    )
  return [
    {
      'claim': claim,
      'seeds': [float(x) for x in values],
      'difference': spreads.spread(values),
      'verdict': _verdict(np.asarray(values)),
    }
    for claim, values in found.items()
  ]


def selection(
  setting: settings.Setting, fits: dict[str, Any], measure: str
) -> np.ndarray:
  """Returns the gain of a selection by similarity over a random one, ``[S]``.

  Both take one stitch from each group of cost. The mean of the random selection
  is exact: over all possible selections.
  """
  first = len(setting.depths)
  routes = settings.candidates(setting)
  flops = np.asarray(fits['flops']['candidates'])
  count = setting.config.selection.count
  order = first + np.argsort(flops[first:], kind='stable')
  gains = []
  for seed, scores in zip(fits['candidates'], fits['scores'][measure]):
    test = np.asarray(seed['test'])
    kept = stitch.select_routes(
      routes, np.asarray([0.0] * first + scores), count=count, flops=flops
    )
    chosen = [routes.index(route) for route in kept if route.adapters]
    blind = [test[group].mean() for group in np.array_split(order, count)]
    gains.append(test[chosen].mean() - np.mean(blind))
  return np.asarray(gains)


def _verdict(values: np.ndarray) -> str:
  """Returns 'open' unless the differences of all seeds have one sign."""
  if (values > 0).all():
    return 'holds'
  return 'fails' if (values < 0).all() else 'open'


def show(
  label: str, summary: dict[str, Any], seconds: dict[str, float]
) -> None:
  """Prints the table and the claims."""
  console.show_table(
    label,
    (
      'method',
      'networks',
      'cost',
      *(f'{level / 1e6:.3g}' for level in summary['levels']),
      'mean',
    ),
    [
      [
        (
          row['title'],
          str(row['networks']),
          f'{row["cost"]:.2f}',
          *map(spreads.percent, row['at']),
          spreads.percent(row['mean']),
        )
        for row in summary['rows']
      ]
    ],
    [
      'test accuracy, %, of the best network on held-out images within these '
      'MFLOPs per image; ±: standard deviation over seeds; cost: FLOPs of the '
      'training relative to the last anchor (the anchors themselves: '
      f'{", ".join(f"{x:.2f}" for x in summary["anchor_cost"])}).',
      'seconds with compilation, all seeds: '
      + ', '.join(f'{name} {x:.0f}' for name, x in seconds.items()),
    ],
  )
  for claim in summary['claims']:
    mean, deviation = (100 * x for x in claim['difference'])
    console.say(
      f'{claim["verdict"]:>5}: {claim["claim"]}: {mean:+.1f} ± {deviation:.1f}'
    )
