"""Statistics of the three protocols, claims of the papers, and the tables."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments._protocols import settings
from experiments._run import console, spreads, verdicts
from experiments._shared import protocols

_STATISTICS = {
  settings.SCALE: ('held_in', 'held_out'),
  settings.WILD: ('beats_base', 'beats_best', 'over_base', 'over_best'),
}


def summarise(
  setting: settings.Setting, tables: dict[str, dict[str, Any]]
) -> dict[str, Any]:
  """Computes the statistics of all protocols.

  Args:
    setting: with the subsets.
    tables: by size, ``bounds`` and the measurements by protocol and method.

  Returns:
    ``rows``: protocol, size of the model, method and its statistics by seed;
    in two protocols by the number of experts, ``counts``. ``claims``: whether
    each holds in every seed.
  """
  rows = []
  for size, found in tables.items():
    bounds = {k: np.asarray(v) for k, v in found['bounds'].items()}
    for protocol in settings.PROTOCOLS:
      for method, measured in found[protocol].items():
        statistics = _statistics(setting, protocol, bounds, measured)
        rows.append(
          {
            'protocol': protocol,
            'size': size,
            'method': method,
            'choices': measured['choices'],
            **{k: np.asarray(v).tolist() for k, v in statistics.items()},
          }
        )
  return {'rows': rows, 'claims': verdicts.judge(gains(rows))}


def _statistics(
  setting: settings.Setting,
  protocol: str,
  bounds: dict[str, np.ndarray],
  measured: dict[str, Any],
) -> dict[str, Any]:
  """Computes the statistics of one method, ``[S]`` or ``[S, N]``."""
  count, members = setting.experts, setting.members[protocol]
  test, base = np.asarray(measured['test']), bounds['base']
  # The score of each expert on its own task, [S, P].
  own = np.diagonal(bounds['experts'][..., :count], axis1=1, axis2=2)
  if protocol == settings.BENCH:
    return protocols.merge_bench(
      test[:, 0, :count],
      own,
      general=test[:, 0, count:],
      base=base[:, count:],
      merge_seconds=measured['merge_seconds'][0],
      validation_seconds=measured['validation_seconds'][0],
    )._asdict()
  found: Any
  if protocol == settings.SCALE:
    found = protocols.at_scale(
      members,
      test[..., :count],
      own,
      held_out=test[..., count:],
      base=base[:, count:],
    )
  else:
    found = protocols.in_the_wild(members, test, bounds['alone'], base)
  return {
    'counts': found.sizes,
    **{name: getattr(found, name) for name in _STATISTICS[protocol]},
  }


def gains(rows: list[dict[str, Any]]) -> Iterator[tuple[str, np.ndarray]]:
  """Yields claims of the papers, and by how much each holds, ``[S]``."""
  named: dict[Any, dict[str, Any]] = {}
  for row in rows:
    named.setdefault((row['protocol'], row['size']), {})[row['method']] = row
  sizes = [*dict.fromkeys(row['size'] for row in rows)]
  small, large = sizes[0], sizes[-1]

  def table(protocol: str, size: str, name: str) -> np.ndarray:
    """Returns one statistic of all methods, ``[M, S, ...]``."""
    methods = named[protocol, size].values()
    return np.stack([np.asarray(row[name]) for row in methods])

  if small != large:
    claim = f'normalised score of {large} above {small}, mean of methods'
    high, low = (table(settings.BENCH, s, 'normalised') for s in (large, small))
    yield f'MergeBench: {claim}', (high - low).mean(0)
    high, low = (
      table(settings.SCALE, s, 'held_in')[..., -1] for s in (large, small)
    )
    yield f'at scale: held-in of {large} above {small}', (high - low).mean(0)
    yield (
      f'at scale: methods closer to each other in {large}',
      np.ptp(low, axis=0) - np.ptp(high, axis=0),
    )
  for size in sizes:
    held_in, held_out = (
      table(settings.SCALE, size, name) for name in ('held_in', 'held_out')
    )
    fall, rise = held_in[..., 0] - held_in[..., -1], held_out[..., -1]
    yield f'at scale, {size}: held-in falls with more experts', fall.mean(0)
    yield (
      f'at scale, {size}: held-out rises with more experts',
      (rise - held_out[..., 0]).mean(0),
    )
    wild = named[settings.WILD, size]
    if 'sum' not in wild:
      continue
    share, over_base, over_best = (
      np.asarray(wild['sum'][name])
      for name in ('beats_base', 'over_base', 'over_best')
    )
    yield (
      f'in the wild, {size}: task arithmetic above the base in 80 % of draws',
      share.min(1) - 0.8 + 1e-9,
    )
    yield (
      f'in the wild, {size}: task arithmetic above its best member',
      over_best.mean(1),
    )
    for name, row in wild.items():
      if name != 'sum':
        by = (over_base - np.asarray(row['over_base'])).mean(1)
        yield f'in the wild, {size}: task arithmetic above {name}', by


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints a table for each protocol, and the verdicts on the claims."""
  rows = summary['rows']
  bench = [row for row in rows if row['protocol'] == settings.BENCH]
  cells = [
    (
      row['size'],
      row['method'],
      spreads.percent(spreads.spread(row['normalised'])),
      spreads.percent(spreads.spread(row['forgetting'])),
      f'{row["seconds"]:.2g}',
    )
    for row in bench
  ]
  columns = ('model', 'method', 'normalised %', 'forgetting %', 'search s')
  console.show_table(f'{label}: MergeBench', columns, [cells], [])
  for protocol, statistics in _STATISTICS.items():
    mine = [row for row in rows if row['protocol'] == protocol]
    counts = mine[0]['counts']
    for name in statistics:
      cells = [
        (
          row['size'],
          row['method'],
          *map(spreads.percent, spreads.columns(row[name])),
        )
        for row in mine
      ]
      heads = ('model', 'method', *(f'n = {n}' for n in counts))
      title = f'{label}: {protocol}, {name.replace("_", " ")}, %; n experts'
      console.show_table(title, heads, [cells], [])
  console.say('±: standard deviation over seeds. In points, by seed:')
  for line in verdicts.lines(summary['claims'], factor=100):
    console.say(line)
