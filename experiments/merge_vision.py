"""Which merge of task experts retains most of their accuracy?

  python -m experiments.merge_vision --config=configs/merge_vision.py:digits

The protocol of the CLIP-suite papers at a size that trains on a CPU. A base
encoder and a head for each task are trained on a small mixture of all tasks;
the heads are then frozen. Each expert fine-tunes the encoder on its own task,
and a merge combines encoders only. Its coefficient and arguments maximise the
mean accuracy over tasks on validation images, pooled over the seeds: one choice
for all seeds. Test images are used once, with that choice.
"""

import functools
from typing import Any

import jax

from experiments import _main
from experiments._merge_vision import (
  figures,
  merging,
  points,
  settings,
  tables,
)
from experiments._run import experiment, records, sweeps
from experiments._shared import merge_methods, on_mesh, suite_training

NAME = 'merge_vision'


@experiment.body(NAME, settings.load, settings.describe, on_mesh=True)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains a base and experts, merges them, and measures the merges."""
  suite, methods = setting
  suite = suite._replace(mesh=out.mesh)

  # Train a base, an expert for each task, and one model for all tasks.
  start = out.arrays('base', lambda: suite_training.base(suite))
  base, heads = start['encoder'], start['heads']
  experts = out.arrays(
    'experts', lambda: suite_training.experts(suite, base, heads)
  )
  joint = out.arrays('joint', lambda: suite_training.joint(suite, base, heads))
  stack = jax.jit(suite_training.task_vectors)(base, experts)
  place = functools.partial(on_mesh.shard, mesh=out.mesh)
  base, stack = place(base, lead=1), place(stack, lead=2)
  bounds = out.values(
    'bounds', lambda: merging.bounds(suite, base, stack, joint, heads)
  )

  # Compute the statistics of the experts that some method uses.
  supplied = suite_training.statistics(
    out, suite, merge_methods.statistics(methods), experts, heads
  )

  # Merge with every method, candidate and coefficient.
  models = merging.Models(base, stack, heads, supplied)
  results = {
    method.name: out.values(
      method.name, functools.partial(merging.sweep, suite, method, models)
    )
    for method in methods
  }

  # Write a checkpoint, figures, a table and the record.
  summary = tables.summarise(suite.tasks.names, bounds, results)
  out.log(*map(tables.without_curve, summary['rows']))
  file = out.path / 'merged.safetensors'
  merging.save_winner(suite, methods, models, summary['winner'], file)
  figures.sweep(out.path / 'sweep.png', summary)
  figures.tasks(out.path / 'tasks.png', summary)
  tables.show(out.title, summary)
  return out.finish(summary)


DOOR = sweeps.Door(
  points.NUMBERS, functools.partial(points.points, NAME), points.metrics
)

if __name__ == '__main__':
  _main.main(NAME, run, DOOR)
