"""The points of a sweep: trainings that differ in numbers, side by side.

All networks of all points are trained in one mapped call. The experiment then
continues with the networks of each point.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import ml_collections

from experiments._align_barrier import pairings, settings
from experiments._run import records, sweeps
from experiments._shared import nets_training
from wsl import types

# Fields of the config that the training is traced in.
NUMBERS = ('training.learning_rate', 'training.weight_decay', 'seed')

Answer = Callable[[records.Run, settings.Setting], dict[str, Any]]


def points(
  name: str,
  answer: Answer,
  config: ml_collections.ConfigDict,
  configs: Sequence[ml_collections.ConfigDict],
  workdir: str,
  mesh: jax.sharding.Mesh | None,
) -> sweeps.Points:
  """Returns the points of a group; see ``sweeps.Door``.

  Args:
    name: of the experiment.
    answer: the body of the experiment.
    config: of the group.
    configs: of its points.
    workdir: not used, as the points share nothing.
    mesh: of the run, or None.

  Returns:
    The points. Their function maps numbers by field to networks ``[2 S, ...]``
    of S pairs.
  """
  del configs, workdir
  setting = settings.load(config)

  def fn(numbers: dict[str, types.Array]) -> types.Params:
    training = config.training
    return nets_training.traced(
      setting.net,
      training,
      pairings.keys(numbers.get('seed', config.seed), config.pairs),
      setting.train,
      rate=numbers.get('training.learning_rate', training.learning_rate),
      decay=numbers.get('training.weight_decay', training.weight_decay),
    )

  def finish(
    config: ml_collections.ConfigDict, workdir: str, networks: types.Params
  ) -> dict[str, Any]:
    own = setting._replace(config=config)
    out = records.Run(name, config, workdir, mesh=mesh)
    out.begin(None)
    out.arrays('networks', functools.partial(pairings.paired, own, networks))
    return answer(out, own)

  return sweeps.Points(fn, finish)


def metrics(record: dict[str, Any]) -> dict[str, float]:
  """Returns the mean barrier in test loss after each alignment."""
  return {
    f'barrier {row["title"]}': row['above_chord']['test loss'][0]
    for row in record['rows']
    if not row['title'].startswith('control') and 'REPAIR' not in row['title']
  }
