"""Students: separately trained networks of widths between the anchors."""

from typing import Any, NamedTuple

import numpy as np

from experiments._stitch_family import joint, settings, training, untrained
from wsl import stitch


class Method(NamedTuple):
  """Supervision and cost of the students' training.

  Attributes:
    taught: whether the last anchor is distilled, in addition to the labels.
    shared: whether all students together have the cost of the joint training
      of a family, or each of them has.
  """

  taught: bool
  shared: bool


METHODS = {
  'distilled': Method(taught=True, shared=True),
  'alone': Method(taught=False, shared=True),
  'distilled_each': Method(taught=True, shared=False),
}


def train(
  setting: settings.Setting, fitted: untrained.Fitted, name: str
) -> dict[str, Any]:
  """Trains and measures students by one of ``METHODS``.

  Returns:
    ``seeds``: a list over seeds of ``{'held_out': [W], 'test': [W]}``;
    ``flops``: of the training of one seed, summed over widths.
  """
  config, method = setting.config, METHODS[name]
  widths = list(config.students.widths)
  teachers = [
    untrained.teacher(setting, fitted.anchors, seed)
    for seed in range(config.seeds)
  ]
  data = training.examples(setting, teachers if method.taught else None)
  cost = joint.budget(setting, fitted.flops)
  cost = cost / len(widths) if method.shared else cost
  columns, total = [], 0.0
  for i, forward in enumerate(fitted.flops['students']):
    one = training.step_cost(setting, forward)
    steps = max(1, round(cost / one))
    trained = training.networks(
      setting,
      f'{name} {widths[i]}',
      (widths[i], max(setting.depths.values())),
      data,
      stage=30 + i,
      steps=steps,
    )
    columns.append([_measure(setting, model) for model in trained])
    total += steps * one
  seeds = [
    {k: [column[s][k] for column in columns] for k in ('held_out', 'test')}
    for s in range(config.seeds)
  ]
  return {'seeds': seeds, 'flops': total}


def _measure(
  setting: settings.Setting, model: stitch.Segmented
) -> dict[str, float]:
  """Returns the accuracies of one network."""
  rows = np.zeros((1, 1), np.int32)
  found = settings.accuracies(setting, settings.alone, model, rows)
  return {split: values[0] for split, values in found.items()}
