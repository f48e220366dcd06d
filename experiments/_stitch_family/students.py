"""Networks of widths between the anchors', each trained by itself."""

from typing import Any, NamedTuple

import numpy as np

from experiments._stitch_family import joint, settings, training, untrained
from wsl import stitch


class Method(NamedTuple):
  """How students are trained.

  Attributes:
    taught: whether the last anchor teaches them, beside the labels.
    shared: whether all of them together have the cost of a family's joint
      training, or each has.
  """

  taught: bool
  shared: bool


METHODS = {
  'distilled': Method(taught=True, shared=True),
  'alone': Method(taught=False, shared=True),
  'distilled_each': Method(taught=True, shared=False),
}


def train(
  setting: settings.Setting,
  anchors: untrained.Anchors,
  flops: dict[str, Any],
  name: str,
) -> dict[str, Any]:
  """Trains and measures students.

  Args:
    setting: what every stage needs.
    anchors: parameters by name, ``[S, ...]``; the last one teaches.
    flops: for one image, from ``least_squares``.
    name: of ``METHODS``.

  Returns:
    ``seeds``: a list over seeds of ``{'held_out': [W], 'test': [W]}``;
    ``flops``: of one seed's training, all widths together.
  """
  config, method = setting.config, METHODS[name]
  widths = list(config.students.widths)
  data = [
    training.examples(
      setting,
      untrained.teacher(setting, anchors, seed) if method.taught else None,
    )
    for seed in range(config.seeds)
  ]
  cost = joint.budget(setting, flops)
  cost = cost / len(widths) if method.shared else cost
  columns, total = [], 0.0
  for i, forward in enumerate(flops['students']):
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
