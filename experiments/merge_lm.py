"""Do language models of different texts merge into one that is good at all?

  python -m experiments.merge_lm --config=configs/merge_lm.py:python

A decoder-only transformer of bytes, the base, is trained on a mixture of
domains. Experts continue it on one domain each, by one of several recipes.
Every method merges the experts of the main recipe; its coefficient and
arguments minimise the mean loss over domains on validation text, pooled over
the seeds. Test text is used once, with that choice. The loss is in bits for
each byte.

Points of the lines between two experts show what is between two domains. The
protocol of In-the-Wild merging (Hitit et al., 2025, arXiv:2511.21437) merges
random subsets of the whole pool: the share of merges that are better than the
base, and the gain over the best member. Its claims are judged in every seed.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments import _main
from experiments._merge_lm import (
  figures,
  lines,
  merging,
  report,
  samples,
  settings,
  training,
  wild,
)
from experiments._run import experiment, records
from experiments._shared import side_by_side, suite_training

NAME = 'merge_lm'


@experiment.body(NAME, settings.load, settings.describe, on_mesh=True)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains a base and a pool of experts, merges them, measures the merges."""
  config = setting.config
  setting = setting._replace(mesh=out.mesh)

  # Train a base, experts of every domain and recipe, and one model for all.
  base = out.arrays('base', lambda: training.base(setting))
  pool = {
    recipe: out.arrays(
      recipe, functools.partial(training.experts, setting, base, recipe)
    )
    for recipe in config.recipes
  }
  joint = out.arrays('joint', lambda: training.joint(setting, base))
  experts = jax.tree.map(lambda *x: jnp.concatenate(x, 1), *pool.values())
  stack = jax.jit(suite_training.task_vectors)(base, experts)

  # Merge the main experts with every method, candidate and coefficient.
  main = pool[config.main]
  own = jax.jit(suite_training.task_vectors)(base, main)
  grams = (
    out.arrays('grams', lambda: training.grams(setting, main))
    if any(method.statistics for method in setting.methods)
    else None
  )
  models = merging.Models(base, main, own, grams)
  bounds = out.values('bounds', lambda: merging.bounds(setting, models, joint))
  results = {
    method.name: out.values(
      method.name, functools.partial(merging.sweep, setting, method, models)
    )
    for method in setting.methods
  }
  results[merging.SOUP] = out.values(
    merging.SOUP, lambda: merging.soup(setting, models)
  )

  # Measure the lines between experts, and merges of subsets of the pool.
  between = out.values('lines', lambda: lines.measure(setting, main))
  alone = out.values('pool', lambda: wild.alone(setting, base, experts))
  subsets = {
    method.name: out.values(
      f'wild.{method.name}',
      functools.partial(wild.measure, setting, method, base, stack, alone),
    )
    for method in setting.wild
  }

  # Let the first seed's models write.
  def write() -> list[dict[str, str]]:
    name, merged = merging.best_merge(setting, models, results)
    by_domain = enumerate(setting.corpus.names)
    first = {d: side_by_side.pick(main, 0, i) for i, d in by_domain}
    chosen = {'base': side_by_side.pick(base, 0), **first, name: merged}
    return samples.write(setting, chosen)

  texts = out.values('samples', write)

  # Write figures, sample text, tables and the record.
  summary = report.summarise(setting.corpus, bounds, results, between, subsets)
  out.log(*summary['rows'])
  figures.merges(out.path / 'merges.png', summary)
  figures.lines(out.path / 'lines.png', summary)
  figures.subsets(out.path / 'subsets.png', summary)
  report.write_samples(out.path / 'samples.txt', texts)
  report.show(out.title, summary)
  return out.finish({**summary, 'samples': texts})


if __name__ == '__main__':
  _main.main(NAME, run)
