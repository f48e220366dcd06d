"""Why is RegMean further below the experts here than in its publications?

  python -m experiments.regmean_gap --config=configs/regmean_gap.py:digits

On eight tasks of CLIP, RegMean retains 91 % of the accuracy of the experts
(Tang et al., FusionBench), on the eight tasks of merge_vision about 80 %. One
field of its recipe is changed at a time: whose inputs the Gram matrices are of
(each expert's; or the merged model's, which is RegMean++), the number of
examples, the shrinkage, the coefficient, the solved leaves, correlations within
patches of convolutions, the moments of units, and the number of tasks. Every
recipe is measured with the coefficient 1 and with the one that is best on
validation images. Then errors are measured by depth: those of each block by
itself, and those that accumulate.
"""

import functools
from typing import Any

from experiments import _main
from experiments._regmean_gap import depth, report, settings, variants
from experiments._run import experiment, records
from experiments._shared import suite_training

NAME = 'regmean_gap'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains experts, merges them by every recipe, and measures errors."""
  suite = setting.suite

  # Train a base, and an expert for each task.
  models = suite_training.models(out, suite)
  own = out.values(
    'own', lambda: variants.family(setting, models.stack, models).tolist()
  )

  # Merge by every recipe and, for comparison, without data.
  results: dict[str, Any] = {}
  merges: dict[str, Any] = {}
  for label, recipe in setting.recipes.items():
    merge = functools.partial(variants.merge_all, setting, label, models)
    if label in report.BY_DEPTH:
      merges[label] = out.arrays(f'merged {label}', merge)
      merge = functools.partial(merges.__getitem__, label)
    count = settings.tasks_of(setting, recipe)
    results[label] = out.values(
      label, functools.partial(_measure, setting, merge, models, count)
    )
  for count in settings.counts(setting):
    for name in settings.PEERS:
      merge = functools.partial(
        variants.peer, name, variants.first(models, count)
      )
      results[f'{name} of {count}'] = out.values(
        f'{name} of {count}',
        functools.partial(_measure, setting, merge, models, count),
      )

  # Measure errors and accuracies by depth.
  by_depth = {
    label: out.values(
      f'depth {label}',
      functools.partial(depth.measure, setting, merged, models),
    )
    for label, merged in merges.items()
  }

  # Write a figure, a table with verdicts and the record.
  summary = report.summarise(setting, own, results)
  out.log(*summary['rows'], *summary['verdicts'])
  report.draw(out.path / 'regmean.png', setting, summary, by_depth)
  report.show(out.title, summary, by_depth)
  return out.finish({**summary, 'by_depth': by_depth, 'own': own})


def _measure(
  setting: settings.Setting,
  merge: Any,
  models: suite_training.Models,
  count: int,
) -> dict[str, Any]:
  """Merges the first tasks and measures the merge."""
  return variants.measure(setting, merge(), variants.first(models, count))


if __name__ == '__main__':
  _main.main(NAME, run)
