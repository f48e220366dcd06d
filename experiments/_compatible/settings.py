"""Chains of models, each with a gallery of its own.

The result of a stage is the features of its models, one for each of S seeds:
``{'train', 'gallery', 'queries'}``, ``[S, N, width]``. Stages are named '1',
'2', ...
"""

import functools
from typing import Any, TypeAlias

import jax
import ml_collections
import numpy as np

from experiments._compatible import recipes
from experiments._run import checks, public_calls
from experiments._shared import one_task, side_by_side
from wsl import stitch, types

Setting = one_task.Setting  # gallery: held-out images; queries: test
Features: TypeAlias = dict[str, types.Array]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  checks.choices('methods', config.methods, recipes.RECIPES)
  if config.methods[:1] != ('independent',):
    raise ValueError('methods: the first must be independent, for comparison')
  for where, function in (('bct', stitch.bct_loss), ('bt2', stitch.bt2_loss)):
    public_calls.check(function, config[where], where=where)
  public_calls.check(stitch.hoc_loss, config.hoc, where='hoc')
  supplied = ('new', 'old')
  public_calls.check(
    stitch.random_basis, config.basis, supplied=supplied, where='basis'
  )
  free = jax.ShapeDtypeStruct((2, 2), np.float32)  # raises on invalid values
  rotate = functools.partial(stitch.orthogonal, kind=config.basis.kind)
  jax.eval_shape(rotate, free)
  images = one_task.load(config)
  counts = list(config.stages.classes)
  if len(counts) != len(config.stages.hidden) or len(counts) < 2:
    raise ValueError(
      f'stages: classes={counts} and hidden={list(config.stages.hidden)}: '
      'expected as many of both, 2 or more'
    )
  few = int((np.asarray(images.train[1]) < counts[0]).sum())
  checks.sizes(
    {
      'seeds': (config.seeds, 1, None),
      'stages.classes, the first': (counts[0], 2, images.classes),
      'stages.classes, the last': (counts[-1], counts[0], images.classes),
      'width': (config.width, images.classes - 1, None),
      'basis.extra': (config.basis.extra, 1, config.width),
      'training.steps': (config.training.steps, 1, None),
      'training.batch_size': (config.training.batch_size, 1, few),
    }
  )
  return Setting(config, images)


def describe(setting: Setting) -> str:
  """Returns the numbers of models, classes and images in one line."""
  config, images = setting.config, setting.images
  return (
    f'{config.seeds} seeds of {len(config.stages.classes)} models, on '
    f'{list(config.stages.classes)} classes; {len(images.train[1])} training '
    f'images, {config.held_out} in the gallery, {len(images.test[1])} queries'
  )


def train(
  setting: Setting, method: str, alone: dict[str, Features]
) -> dict[str, Features]:
  """Trains the stages of a chain in order.

  Args:
    setting: config, data and model.
    method: of ``recipes.RECIPES``.
    alone: the stages of the independent chain, which other chains share the
      first stage of; empty for that chain itself.

  Returns:
    Features by stage.
  """
  stages: dict[str, Features] = {}
  before = None
  for place in range(len(setting.config.stages.classes)):
    name = f'{place + 1}'
    if not place and alone and not method.startswith('simplex'):
      before = alone[name]
    else:
      before = _train_stage(setting, method, place, before, alone.get(name))
    stages[name] = before
  return stages


def _train_stage(
  setting: Setting,
  method: str,
  place: int,
  old: Features | None,
  alone: Features | None,
) -> Features:
  """Trains one stage for all seeds, and computes features of all images."""
  config, images = setting.config, setting.images
  x, y = images.train
  count = config.stages.classes[place]
  mine = np.flatnonzero(np.asarray(y) < count)
  make = recipes.RECIPES[method]
  if old is None:
    make = recipes.FIRST.get(method, make)
  recipe = make(
    recipes.Stage(
      config,
      config.stages.hidden[place],
      images.classes,
      x[:1],
      y[mine],
      None if old is None else old['train'][:, mine],
      None if alone is None else alone['train'][:, mine],
    )
  )
  stage = 10 * list(recipes.RECIPES).index(method) + place
  keys = side_by_side.keys(config.seed, stage, config.seeds)
  shared = {
    'batch': (x[mine], y[mine]),
    'targets': recipe.targets,
    'bound': recipe.bound,
  }

  def pick(shared: Any, run: types.Array) -> Any:
    bound, own = side_by_side.pick((shared['bound'], shared['targets']), run)
    return bound, (*shared['batch'], *own)

  trained = side_by_side.advance_all(
    f'{method} {place + 1}',
    recipe.loss,
    jax.jit(jax.vmap(recipe.start))(keys),
    keys,
    shared,
    pick,
    steps=config.training.steps,
    batch_size=config.training.batch_size,
    rate=config.training.learning_rate,
    at_once=config.at_once,
  )
  features = jax.jit(jax.vmap(recipe.features, in_axes=(0, None)))
  return {
    'train': features(trained, x),
    'gallery': features(trained, images.held_out[0]),
    'queries': features(trained, images.test[0]),
  }


def measure(
  setting: Setting, method: str, stages: dict[str, Features]
) -> dict[str, Any]:
  """Evaluates the queries of every stage in the gallery of every stage.

  Args:
    setting: config, data and model.
    method: that trained the stages.
    stages: their features.

  Returns:
    ``top1`` and ``map``: compatibility matrices, ``[S, T, T]``;
    ``compatibility``: average compatibility by ``top1``, ``[S]``.
  """
  found: dict[str, Any] = {'top1': [], 'map': [], 'compatibility': []}
  for seed in range(setting.config.seeds):
    for metric in ('top1', 'map'):
      matrix = stitch.compatibility_matrix(
        [stages[name]['queries'][seed] for name in sorted(stages)],
        [stages[name]['gallery'][seed] for name in sorted(stages)],
        setting.images.test[1],
        setting.images.held_out[1],
        metric=metric,
        leading=method == 'bt2',
      )
      found[metric].append(matrix.tolist())
    found['compatibility'].append(
      stitch.average_compatibility(found['top1'][-1])
    )
  return found
