"""Claims, table and figure of the merges of all pools."""

import pathlib
from typing import Any

import numpy as np

from experiments._adapters_merge import merging, settings
from experiments._run import canvas, console, spreads, verdicts
from experiments._shared import side_by_side
from wsl import adapters

TITLES = {
  'sum': 'exact sum',
  'separate': 'sums of A and of B',
  'ties': 'TIES on products',
  'ties_factors': 'TIES on A and B',
  'knots': 'KnOTS with TIES',
  'tsv': 'TSV-M',
  'lego': 'LoRA-LEGO',
  'lego_invariant': 'LEGO, invariant',
  'truncated': 'truncated sum',
  'rmm': 'RMM, one model each',
}
POOLS = {
  'own': ('A drawn for each task', '#1f6fb4'),
  'shared': ('A the same at first', '#e8871e'),
  'frozen': ('A frozen, random', '#7f7f7f'),
  'orthogonal': ('A frozen, orthogonal', '#2a8c4a'),
}


def overlap(stack: merging.Stack) -> list[float]:
  """Returns the mean overlap of two different LoRAs of each seed, ``[S]``."""
  seeds, count = next(iter(stack.values())).a.shape[:2]
  others = ~np.eye(count, dtype=bool)
  found = []
  for s in range(seeds):
    tables = adapters.overlap(side_by_side.pick(stack, s)).values()
    found.append(float(np.mean([np.asarray(x)[others] for x in tables])))
  return found


def summarise(
  setting: settings.Setting,
  results: dict[str, dict[str, Any]],
  overlap: dict[str, list[float]],
) -> dict[str, Any]:
  """Summarises the scores.

  The retained part is the gain of a merge over the base relative to that of the
  LoRAs of the pool on their own tasks, both means over tasks.

  Args:
    setting: tasks and config.
    results: by pool and merge, from ``merging.measure``.
    overlap: of the LoRAs of each pool, by seed.

  Returns:
    ``rows``, one for each pool and merge, with spreads over seeds; ``claims``;
    ``curves``, the retained part of the exact sum by pool at each coefficient,
    ``[L][S]``; ``ranks``, that of LEGO and of the truncated sum; ``base``
    and ``own`` scores and ``overlap`` by pool.
  """
  retained: dict[tuple[str, str], np.ndarray] = {}
  level: dict[str, np.ndarray] = {}
  rows = []
  curves, base, own = {}, {}, {}
  first = setting.config.pools[0]
  for pool, found in results.items():
    ends = np.asarray(found['experts']['test']).mean(-1)
    gain = ends[1] - ends[0]  # [S]
    base[pool], own[pool] = (spreads.spread(x) for x in ends)
    for name, result in found.items():
      if name == 'experts':
        continue
      test = np.asarray(result['test']).mean(-1)  # [L, S]
      chosen = result['tested'].index(result['coef'])
      parts = (test - ends[0]) / gain
      retained[pool, name] = parts[chosen]
      if name == 'sum':
        curves[pool] = parts.tolist()
        # In parts of the gain of the first pool, the same for all pools.
        ends_of = np.asarray(results[first]['experts']['test']).mean(-1)
        level[pool] = (test[chosen] - ends[0]) / (ends_of[1] - ends_of[0])
      rows.append(
        {
          'pool': pool,
          'merge': name,
          'coef': result['coef'],
          'score': spreads.spread(test[chosen]),
          'retained': spreads.spread(parts[chosen]),
          'by_seed': parts[chosen].tolist(),
        }
      )
  first = setting.config.pools[0]
  ranks = {
    name: [
      retained[first, f'{name} {r}'].tolist() for r in setting.config.ranks
    ]
    for name in ('lego', 'truncated')
  }
  return {
    'rows': rows,
    'claims': _claims(setting, retained, level, curves),
    'curves': curves,
    'ranks': ranks,
    'base': base,
    'own': own,
    'overlap': overlap,
  }


def _claims(
  setting: settings.Setting,
  retained: dict[tuple[str, str], np.ndarray],
  level: dict[str, np.ndarray],
  curves: dict[str, Any],
) -> dict[str, dict[str, Any]]:
  """Judges the claims that the pools and merges of a run allow."""
  config = setting.config
  free = [pool for pool in config.pools if not settings.POOLS[pool].frozen]
  pairs = [
    *((p, 'sum', 'separate') for p in free),
    *((p, 'ties', 'ties_factors') for p in free),
    *((p, 'knots', 'ties') for p in free),
    *((p, 'lego', 'sum') for p in free),
    *((p, 'lego', 'ties') for p in free),
    *((p, 'lego', 'truncated') for p in free),
    *((p, 'rmm', 'sum') for p in free),
  ]
  gains = [
    (f'{TITLES[a]} above {TITLES[b]}, {p}', retained[p, a] - retained[p, b])
    for p, a, b in pairs
    if (p, a) in retained and (p, b) in retained
  ]
  one = list(config.coefs).index(1.0)
  at_one = {pool: np.asarray(x)[one] for pool, x in curves.items()}
  for other in ('frozen', 'own', 'shared'):
    if 'orthogonal' in at_one and other in at_one:
      gain = at_one['orthogonal'] - at_one[other]
      gains.append((f'plain sum: orthogonal above {other}', gain))
      gain = retained['orthogonal', 'sum'] - retained[other, 'sum']
      gains.append((f'best λ: orthogonal above {other}', gain))
      gain = level['orthogonal'] - level[other]
      gains.append((f'best λ, scores: orthogonal above {other}', gain))
  return verdicts.judge(gains)


def show(
  label: str, setting: settings.Setting, summary: dict[str, Any]
) -> None:
  """Prints the table and the verdicts."""
  groups = [
    [
      (
        row['pool'],
        TITLES.get(row['merge'], row['merge']),
        spreads.text(row['score'], digits=2),
        spreads.percent(row['retained']),
        f'{row["coef"]:g}',
      )
      for row in summary['rows']
      if row['pool'] == pool
    ]
    for pool in setting.config.pools
  ]
  ends = [
    f'{pool}: base {spreads.text(summary["base"][pool], digits=3)}, own LoRAs '
    f'{spreads.text(summary["own"][pool], digits=3)}, overlap '
    f'{spreads.text(spreads.spread(summary["overlap"][pool]), digits=2)}'
    for pool in setting.config.pools
  ]
  console.show_table(
    label,
    ('pool', 'merge', 'score', 'retained, %', 'λ'),
    groups,
    [
      f'score: {setting.problem.unit}, test, mean over tasks; ±: standard '
      'deviation over seeds; retained: of the gain of the LoRAs on their own '
      'tasks over the base.',
      *ends,
      'claims, gains in points of the retained part by seed:',
      *verdicts.lines(summary['claims'], factor=100),
    ],
  )


def draw(
  path: pathlib.Path, setting: settings.Setting, summary: dict[str, Any]
) -> None:
  """Draws merges by pool, the exact sum by coefficient, and ranks."""
  config = setting.config
  fig, ((merges, sums, ranks),) = canvas.grid(17, 5.6, 1, 3)
  names = list(config.merges)
  for k, pool in enumerate(config.pools):
    title, colour = POOLS[pool]
    found = {r['merge']: r for r in summary['rows'] if r['pool'] == pool}
    own = [name for name in names if name in found]
    pairs = 100 * np.asarray([found[name]['retained'] for name in own])
    places = np.asarray([len(names) - 1 - names.index(name) for name in own])
    shift = 0.18 * ((len(config.pools) - 1) / 2 - k)
    merges.errorbar(
      pairs[:, 0], places + shift, xerr=pairs[:, 1],
      fmt='o', ms=5, color=colour, label=title,
    )  # fmt: skip
    mean, spread = 100 * np.transpose(
      spreads.columns(np.transpose(summary['curves'][pool]))
    )
    canvas.curve(sums, config.coefs, mean, spread, colour=colour, label=title)
  merges.set_yticks(
    np.arange(len(names))[::-1], [TITLES[name] for name in names]
  )
  merges.axvline(0, color=canvas.INK, lw=1, ls=(0, (4, 3)))
  merges.grid(axis='x', color='#e6e6e6', lw=0.8)
  merges.set_xlabel('retained gain, %')
  canvas.heading(merges, 'Merges with λ from validation')
  sums.set_xlabel('coefficient λ of the exact sum')
  sums.set_ylabel('retained gain, %')
  low = min(0, *(np.min(summary['curves'][p]) for p in config.pools))
  sums.set_ylim(bottom=100 * max(low, -1.0))
  sums.legend(frameon=False, fontsize=10)
  canvas.heading(sums, 'Exact sums: interference')
  for name, colour in (('lego', '#1f6fb4'), ('truncated', '#e8871e')):
    mean, spread = 100 * np.transpose(
      spreads.columns(np.transpose(summary['ranks'][name]))
    )
    canvas.curve(
      ranks, config.ranks, mean, spread, colour=colour, label=TITLES[name]
    )
  canvas.log_ticks(ranks, config.ranks, base=2)
  ranks.set_xlabel(
    f'rank of the merge; {len(setting.problem.names)} LoRAs of '
    f'rank {config.lora.rank}'
  )
  ranks.set_ylabel('retained gain, %')
  ranks.legend(frameon=False, fontsize=10)
  canvas.heading(ranks, f'Merges of low rank, {POOLS[config.pools[0]][0]}')
  canvas.save(fig, path)
