"""Data, model and sizes of a run."""

import itertools
import re
from typing import Any, NamedTuple

import jax
import ml_collections

from experiments._run import checks, public_calls
from experiments._shared import nets, one_task
from wsl import align, models, stats, surgery, tree

# How nested networks are trained: the sizes of a step.
KINDS: dict[str, dict[str, Any]] = {
  'summed': {},
  'sampled': {'draws': 1},
  'mixed': {'draws': 1, 'mixed': True},
  'sandwich': {'draws': 1, 'always': (0, -1)},
}

# The field of each model with the sizes of its elastic groups.
FIELDS = {'ViT': 'hidden', 'MLP': 'widths'}
MOST_LAYERS = 4  # the slices are all mixtures


class Setting(NamedTuple):
  """Data, model and sizes of a run.

  Attributes:
    config: of the run.
    images: normalised images and labels.
    module: the whole network.
    symmetry: of its parameters.
    choices: the factor of each block, of all slices; those that are equal in
      all blocks come first, in the order of ``config.factors``.
    sizes: the size of each slice.
  """

  config: ml_collections.ConfigDict
  images: one_task.Images
  module: Any
  symmetry: align.Symmetry
  choices: list[tuple[int, ...]]
  sizes: list[surgery.Size]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  checks.choice('model.module', config.model.module, FIELDS)
  images = one_task.load(config)
  arguments = {**config.model.arguments, 'outputs': images.classes}
  public_calls.check(
    getattr(models, config.model.module), arguments, where='model.arguments'
  )
  module = getattr(models, config.model.module)(**arguments)
  checks.choices('kinds', config.kinds, KINDS)
  factors = tuple(config.factors)
  if len(factors) < 2 or list(factors) != sorted({*factors}) or factors[0] != 1:
    raise ValueError(f'factors={factors}: expected 1 and larger ones, rising')
  checks.sizes({
    'seeds': (config.seeds, 1, None),
    'steps': (config.steps, 10, None),
    'batch_size': (config.batch_size, 1, len(images.train[1])),
  })  # fmt: skip
  image = images.train[0][:1]
  shapes = jax.eval_shape(nets.build(module, image).init, jax.random.key(0))
  symmetry = align.find_symmetry(module.apply, shapes, image)
  whole, *_ = surgery.granularities(symmetry, groups=config.groups)
  setting = Setting(config, images, module, symmetry, [], [whole])
  layers = len(elastic(setting))
  checks.sizes({'layers': (layers, 1, MOST_LAYERS)})
  uniform = [(q,) * layers for q in factors]
  mixed = itertools.product(factors, repeat=layers)
  choices = [*uniform, *(c for c in mixed if len({*c}) > 1)]
  sizes = [
    surgery.mix_and_match(symmetry, c, groups=config.groups) for c in choices
  ]
  return setting._replace(choices=choices, sizes=sizes)


def resized(setting: Setting, size: surgery.Size) -> Any:
  """Returns the module of a slice."""
  field = FIELDS[setting.config.model.module]
  return setting.module.clone(**{field: hidden_sizes(setting, size)})


def hidden_sizes(setting: Setting, size: surgery.Size) -> tuple[int, ...]:
  """Returns the size of each elastic group of a slice, in order."""
  return tuple(size.widths[name] for name in elastic(setting))


def elastic(setting: Setting) -> list[str]:
  """Returns the names of the elastic groups, in the order of the layers."""
  pattern = re.compile(setting.config.groups)
  return tree.in_order(
    g.name
    for g in setting.symmetry.groups
    if pattern.search(g.name) and not g.outer
  )


def flops(setting: Setting) -> list[int]:
  """Returns the FLOPs of each slice, for one image."""
  image = setting.images.train[0][:1]
  shapes = jax.eval_shape(setting.module.init, jax.random.key(0), image)
  cut = lambda size: lambda p: surgery.slice(p, size, symmetry=setting.symmetry)
  return [
    stats.cost(
      resized(setting, size).apply, jax.eval_shape(cut(size), shapes), image
    ).flops
    for size in setting.sizes
  ]


def describe(setting: Setting) -> str:
  """Returns network, slices and data in one line."""
  config, images = setting.config, setting.images
  return (
    f'{config.seeds} seeds of each {config.model.module}, {config.steps} '
    f'steps; {len(setting.sizes)} slices; {len(images.train[1])} training, '
    f'{len(images.test[1])} test images'
  )
