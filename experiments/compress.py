"""How many bits does a task vector need?

  python -m experiments.compress --config=configs/compress.py:digits

Every codec of ``wsl.codecs`` packs the task vectors of the experts of
merge_vision, at several sizes: ternary with entropy coding (ComPEFT), singular
vectors of few bits with and without second moments (SkillPack), blocks of signs
cut to budgets (BitStack), masks of one shared vector (TALL masks, EMR), and
factors of a truncated SVD in float16, the plain baseline. Measured are the bits
an entry, the relative error of the decoded task vector, and the test accuracy
of the restored expert on its task. Scales of ComPEFT and thresholds of TALL
masks are chosen on validation images for each task, as in their papers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments import _main
from experiments._compress import report, runs, settings
from experiments._run import experiment, records
from experiments._shared import suite_training

NAME = 'compress'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains experts, packs them with every codec, and measures what is left."""
  suite = setting.suite

  # Train a base, and an expert for each task.
  models = suite_training.models(out, suite)

  # Second moments of the inputs of each expert, without labels.
  experts = jax.tree.map(
    lambda base, stack: jnp.expand_dims(base, 1) + stack,
    models.base,
    models.stack,
  )
  grams = suite_training.statistics(
    out, suite, ('grams',), experts, models.heads
  )['grams']

  # Pack with every codec at every size, decode, and measure.
  bounds = out.values('bounds', functools.partial(runs.bounds, suite, models))
  results = {
    codec: out.values(
      codec, functools.partial(runs.measure, setting, codec, models, grams)
    )
    for codec in suite.config.codecs
  }

  # Write a figure, a table and the record.
  summary = report.summarise(bounds, results)
  out.log(*summary['rows'])
  report.draw(out.path / 'rates.png', summary)
  report.show(out.title, summary)
  return out.finish({**summary, 'bounds': bounds, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
