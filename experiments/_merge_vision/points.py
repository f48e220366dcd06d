"""The points of a sweep: merges of the same experts, by traced numbers.

Base and experts are trained once for all points. A point is one merge with one
value of each number; its record has the accuracies that ``run`` would find.
"""

from collections.abc import Sequence
import functools
import hashlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._merge_vision import merging, settings
from experiments._run import records, sweeps
from experiments._shared import (
  merge_methods,
  on_mesh,
  side_by_side,
  suite_accuracy,
  suite_training,
  suites,
)
from wsl import types

# Fields of the config that the merges and accuracies are traced in.
NUMBERS = (
  'arguments.ties.density',
  'arguments.dare.rate',
  'arguments.by_depth.start',
  'arguments.by_depth.end',
  'arguments.breadcrumbs.density',
  'arguments.breadcrumbs.outliers',
  'arguments.pcb.density',
  'arguments.wudi.rate',
  'arguments.consensus.threshold',
  'arguments.tall_masks.threshold',
  'arguments.regmean.shrink',
  'arguments.della.density',
  'arguments.sce.select',
  'arguments.ram.threshold',
  'arguments.ram_plus.threshold',
  'coefs.default',
  'merge_seed',
)
# Fields that the trained models do not depend on.
_OF_MERGES = ('methods', 'arguments', 'coefs', 'merge_seed')


def points(
  name: str,
  config: ml_collections.ConfigDict,
  configs: Sequence[ml_collections.ConfigDict],
  workdir: str,
  mesh: jax.sharding.Mesh | None,
) -> sweeps.Points:
  """Trains the models that the points share; see ``sweeps.Door``.

  Args:
    name: of the experiment.
    config: of the group.
    configs: of its points.
    workdir: of the sweep.
    mesh: of the run, or None.

  Returns:
    The points. Their function maps numbers by field to accuracies ``[S, T]`` on
    both splits, by method.

  Raises:
    ValueError: if a config has several candidates, or a wrong number.
  """
  setting = settings.load(config)
  suite = setting.suite._replace(mesh=mesh)
  methods, *_ = [_single(setting, one) for one in configs]
  models = _trained(name, suite, methods, workdir)
  mapped = suite._replace(mesh=None)  # each point is a candidate itself

  def fn(numbers: dict[str, types.Array]) -> types.Tree:
    keys = side_by_side.keys(
      numbers.get('merge_seed', config.merge_seed), 3, config.seeds
    )
    return {
      method.name: jax.lax.map(
        functools.partial(_of_seed, mapped, method, numbers), (models, keys)
      )
      for method in methods
    }

  return sweeps.Points(fn, functools.partial(_finish, name, mesh))


def _single(
  setting: settings.Setting, config: ml_collections.ConfigDict
) -> list[merge_methods.Method]:
  """Returns the methods of a point, which have one candidate each."""
  methods = merge_methods.parse(config.methods, config.arguments, config.coefs)
  for method in methods:
    for field, found in (
      ('arguments', method.candidates),
      ('coefs', method.coefs),
    ):
      if len(found) != 1:
        raise ValueError(
          f"{field}: '{method.name}' has {len(found)} candidates: a point of a "
          'sweep has one value of each'
        )
  settings.check(setting.suite, methods)
  return methods


def _trained(
  name: str,
  suite: suites.Suite,
  methods: list[merge_methods.Method],
  workdir: str,
) -> merging.Models:
  """Trains base and experts, or loads them from the folder of the sweep."""
  config = suite.config.copy_and_resolve_references()
  with config.unlocked():
    for field in _OF_MERGES:
      del config[field]
  mark = hashlib.sha256(config.to_json().encode()).hexdigest()[:6]
  folder = pathlib.Path(workdir) / f'trained-{mark}'
  out = records.Run(name, config, str(folder), mesh=suite.mesh)
  out.begin(suites.describe(suite))
  start = out.arrays('base', lambda: suite_training.base(suite))
  base, heads = start['encoder'], start['heads']
  experts = out.arrays(
    'experts', lambda: suite_training.experts(suite, base, heads)
  )
  supplied = suite_training.statistics(
    out, suite, merge_methods.statistics(methods), experts, heads
  )
  stack = jax.jit(suite_training.task_vectors)(base, experts)
  place = functools.partial(on_mesh.shard, mesh=suite.mesh)
  base, stack = place(base, lead=1), place(stack, lead=2)
  return merging.Models(base, stack, heads, supplied)


def _of_seed(
  suite: suites.Suite,
  method: merge_methods.Method,
  numbers: dict[str, types.Array],
  operands: tuple[merging.Models, types.PRNGKey],
) -> dict[str, types.Array]:
  """Merges the experts of one seed, and measures them on both splits."""
  models, key = operands
  arguments = {k: dict(v) for k, v in method.candidates[0].items()}
  for field, number in numbers.items():
    prefix, _, rest = field.partition('.')
    function, _, argument = rest.partition('.')
    if prefix == 'arguments' and argument in arguments.get(function, {}):
      arguments[function][argument] = number
  merged = merging.merge(suite, method, arguments, models, key)
  coef: types.Scalar = method.coefs[0]
  if method.name not in suite.config.coefs:
    coef = numbers.get('coefs.default', coef)
  return {
    part: suite_accuracy.of_seed(
      suite.classify,
      suite.config.evaluation.batch_size,
      (models.base, merged, models.heads),
      jax.tree.map(jnp.asarray, getattr(suite.tasks, part)),
      jnp.asarray(coef, jnp.float32),
    )
    for part in ('validation', 'test')
  }


def _finish(
  name: str,
  mesh: jax.sharding.Mesh | None,
  config: ml_collections.ConfigDict,
  workdir: str,
  result: types.Tree,
) -> dict[str, Any]:
  """Writes the record of a point."""
  found = jax.tree.map(lambda x: x.tolist(), result)
  return sweeps.save(name, config, workdir, mesh, {'results': found})


def metrics(record: dict[str, Any]) -> dict[str, float]:
  """Returns the mean accuracies of each method over seeds and tasks, in %."""
  found = {}
  for method, parts in record['results'].items():
    for part in ('validation', 'test'):
      single = len(record['results']) == 1
      label = f'{part} %' if single else f'{method} {part} %'
      found[label] = 100 * float(np.mean(parts[part]))
  return found
