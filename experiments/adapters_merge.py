"""Which merge of LoRAs keeps most of what they learned?

  python -m experiments.adapters_merge --config=configs/adapters_merge.py:python

A base is trained on all tasks briefly, then a LoRA for each task, of which only
the factors are trained. Four pools differ in A: drawn for each task, the same
for all at the start, or frozen, at random or orthogonal between tasks
(Orthogonal Adaptation). Each pool is merged: by the exact sum of the products;
by sums of A and of B separately, as adapters are often averaged; by TIES on
products and on factors; by KnOTS, TSV, LoRA-LEGO; by the exact sum truncated to
the rank of one LoRA; and by reversible merging (RMM), which keeps a model for
each task. Validation selects the coefficient. The claims of the papers are
judged in every seed.
"""

import functools
from typing import Any

from experiments import _main
from experiments._adapters_merge import merging, report, settings, training
from experiments._run import experiment, records

NAME = 'adapters_merge'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains a base and pools of LoRAs, merges them, measures the merges."""
  config = setting.config

  # Train a base, and LoRAs of every task and pool.
  base = out.arrays('base', lambda: training.base(setting))
  pools = {
    pool: training.stack(
      setting,
      out.arrays(pool, functools.partial(training.loras, setting, base, pool)),
    )
    for pool in config.pools
  }

  # Merge every pool by every method, and by two at other ranks.
  results: dict[str, dict[str, Any]] = {}
  for pool, stack in pools.items():
    measure = functools.partial(merging.measure, setting, base, stack)
    names = settings.merges_of(setting, pool)
    jobs = {
      name: (merging.call(setting, name), tuple(config.coefs)) for name in names
    }
    jobs['experts'] = merging.call(setting, 'experts'), (0.0, 1.0)
    if 'rmm' in jobs:
      jobs['rmm'] = merging.call(setting, 'rmm'), (1.0,)
    for name in settings.BY_RANK if pool == config.pools[0] else ():
      for rank in config.ranks:
        merged = merging.call(setting, name, rank)
        jobs[f'{name} {rank}'] = merged, tuple(config.coefs)
    results[pool] = {
      name: out.values(
        f'{pool} {name}',
        functools.partial(
          measure, merged, coefs, every=name in ('sum', 'experts')
        ),
      )
      for name, (merged, coefs) in jobs.items()
    }
  overlap = {
    pool: out.values(
      f'{pool} overlap', functools.partial(report.overlap, stack)
    )
    for pool, stack in pools.items()
  }

  # Write a figure, a table, the verdicts and the record.
  summary = report.summarise(setting, results, overlap)
  out.log(*summary['rows'])
  report.draw(out.path / 'merges.png', setting, summary)
  report.show(out.title, setting, summary)
  return out.finish(summary)


if __name__ == '__main__':
  _main.main(NAME, run)
