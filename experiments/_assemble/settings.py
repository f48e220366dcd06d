"""A deep network in modules: data, config, and the cost of each step."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from experiments._run import checks
from experiments._shared import nets, nets_training, one_task, side_by_side
from wsl import models, stitch, tree, types


class Setting(NamedTuple):
  """Config, data and model of a run.

  Attributes:
    config: of the run.
    images: normalised images and labels.
    draw: maps a key to an untrained network.
    target: shapes of one.
  """

  config: ml_collections.ConfigDict
  images: one_task.Images
  draw: Callable[[types.PRNGKey], stitch.Segmented]
  target: stitch.Segmented


class Step(NamedTuple):
  """FLOPs of one training step of one stage, per example.

  Attributes:
    jobs: of all jobs of the stage, each a separate program.
    longest: of the longest job, when jobs run in parallel on K machines.
    run: of the single program that runs here.
  """

  jobs: float
  longest: float
  run: float


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  module = nets.find(config.model)(**config.model.arguments)
  images = one_task.load(config)
  _check_numbers(config, len(images.train[1]))
  draw = functools.partial(_draw, module, images.train[0][:1])
  target = jax.eval_shape(draw, jax.random.key(0))
  setting = Setting(config, images, draw, target)
  _check_modules(setting)
  _check_zoo(config.zoo, len(images.train[1]))
  return setting


def _check_numbers(config: ml_collections.ConfigDict, count: int) -> None:
  """Checks the numbers of a config against ``count`` training images."""
  checks.sizes(
    {
      'seeds': (config.seeds, 1, None),
      'at_once': (config.at_once, 1, None),
      'steps': (config.steps, side_by_side.SEGMENTS, None),
      'batch_size': (config.batch_size, 1, count),
      'evaluation.batch_size': (config.evaluation.batch_size, 1, None),
    }
  )
  for name in ('budgets', 'fractions'):
    values = list(config[name])
    if not values or values != sorted(values) or not 0 < values[0] <= 1:
      raise ValueError(f'{name}={values}: expected growing numbers in 0 .. 1')
    if values[-1] != 1:
      raise ValueError(f'{name}={values}: the last one must be 1')
  shares = list(config.shares.values())
  if set(config.shares) != {'meta', 'modules', 'fine_tuning'} or not (
    min(shares) > 0 and np.isclose(sum(shares), 1)
  ):
    raise ValueError(
      f'shares={dict(config.shares)}: expected meta, modules and fine_tuning, '
      'above 0, adding up to 1'
    )


def _check_zoo(config: ml_collections.ConfigDict, count: int) -> None:
  """Checks the config of the zoo against ``count`` training images."""
  for network in config.networks.values():
    nets.find(network)
  nets_training.check(config.training, count)
  checks.sizes(
    {
      'zoo.seeds': (config.seeds, 0, None),
      'zoo.blocks': (config.blocks, 1, None),
      'zoo.fine_tuning.steps': (config.fine_tuning.steps, 1, None),
      'zoo.statistics.examples': (config.statistics.examples, 4, count),
    }
  )


def _check_modules(setting: Setting) -> None:
  """Checks that the blocks are alike and that every stage has some steps."""
  config, target = setting.config, setting.target
  if not target.stacked:
    raise ValueError(
      f'model: blocks of {config.model.module} differ in kind or shape: '
      'modules are trained side by side, so all blocks must be alike'
    )
  if config.modules < 1 or target.depth % config.modules:
    raise ValueError(
      f'modules={config.modules}: expected a divisor of the depth, '
      f'{target.depth}'
    )
  for name, count in plan(setting, config.budgets[0]).items():
    if count < side_by_side.SEGMENTS:
      raise ValueError(
        f'steps={config.steps}: the budget {config.budgets[0]:g} pays for '
        f"{count} steps of '{name}', fewer than {side_by_side.SEGMENTS}: "
        'take more'
      )


def _draw(
  module: Any, image: types.Array, key: types.PRNGKey
) -> stitch.Segmented:
  """Draws an untrained network, segmented into its blocks."""
  params = module.init(key, image)['params']
  return stitch.Segmented(*models.segments(module, params))


def describe(setting: Setting) -> str:
  """Returns the network, its modules and the data in one line."""
  config, images = setting.config, setting.images
  target = setting.target
  return (
    f'{config.seeds} seeds; {config.model.module} of {target.depth} blocks and '
    f'{sum(tree.sizes(target).values()):,} parameters in {config.modules} '
    f'modules; {len(images.train[1])} training, {len(images.test[1])} test '
    'images'
  )


def steps_of(setting: Setting) -> dict[str, Step]:
  """Returns the FLOPs of one step of every stage.

  A matrix product is computed once in the forward pass, once for the gradient
  of its input and once for that of its weights. The trained module needs all
  three, blocks before it only the first, blocks after it the first two; an
  embedding has no gradient of its input. The single program that runs all slots
  here computes the gradients of all blocks.
  """
  k = setting.config.modules
  target = setting.target
  costs = stitch.cost(
    stitch.Family({'target': target}, {}), setting.images.train[0][:1]
  )
  embed, head = (part['target'].flops for part in (costs.embed, costs.head))
  block = costs.blocks['target'][0].flops
  depth = target.depth
  plain = lambda blocks: 2 * embed + 3 * (blocks * block + head)
  # Slot i of k: depth / k trained blocks at 3 products each; i meta blocks
  # before it at 1 and k - 1 - i after it at 2. The first slot trains the
  # embedding, the last one the head.
  jobs = [
    embed * (2 if i == 0 else 1)
    + block * (3 * depth // k + i + 2 * (k - 1 - i))
    + head * (3 if i == k - 1 else 2)
    for i in range(k)
  ]
  whole, small = plain(depth), plain(k)
  return {
    'end_to_end': Step(whole, whole, whole),
    'meta': Step(small, small, small),
    'modules': Step(sum(jobs), max(jobs), k * plain(depth // k + k - 1)),
    'fine_tuning': Step(whole, whole, whole),
  }


def plan(setting: Setting, budget: float) -> dict[str, int]:
  """Returns the number of steps of each stage within a budget.

  Args:
    setting: config, data and model.
    budget: of compute; 1 is ``config.steps`` steps of the whole network.

  Returns:
    Steps by stage, rounded to multiples of ``side_by_side.SEGMENTS``.
  """
  config, step = setting.config, steps_of(setting)
  total = budget * config.steps * step['end_to_end'].jobs
  shares = {'end_to_end': 1.0, **config.shares}
  least = side_by_side.SEGMENTS
  return {
    name: round(share * total / step[name].jobs / least) * least
    for name, share in shares.items()
  }


def flops(
  setting: Setting, steps: dict[str, int], stages: tuple[str, ...]
) -> dict[str, float]:
  """Sums ``jobs``, ``longest`` and ``run`` over stages, for whole batches."""
  step, size = steps_of(setting), setting.config.batch_size
  return {
    kind: float(sum(size * steps[s] * getattr(step[s], kind) for s in stages))
    for kind in Step._fields
  }
