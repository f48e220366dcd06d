"""Pairs of networks from different seeds: data, model, measures.

The networks of a run are leaves ``[S, 2, ...]`` of S pairs. Parameters
are all variables of a model, running moments included.
"""

from collections.abc import Callable
import functools
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from experiments._align_barrier import examples
from experiments._run import checks, public_calls
from experiments._shared import batches, nets, nets_training, side_by_side
from wsl import align, landscape, train, tree, types

# Arguments that the experiment supplies to a method, if it has them.
SUPPLIED = ('symmetry', 'key', 'apply_fn', 'batches')


class Setting(NamedTuple):
  """Config, data and model of a run.

  Attributes:
    config: of the run.
    train: normalised images and their labels, or bytes and the next ones.
    test: the same.
    net: the network.
    symmetry: of its parameters.
    measure: maps parameters to loss and error on both splits, ``{'train':
      {'loss': [], 'error': []}, 'test': ...}``.
    walk: maps (a, b) to a ``landscape.Path`` of these.
    mesh: of the run, or None.
  """

  config: ml_collections.ConfigDict
  train: nets_training.Examples
  test: nets_training.Examples
  net: nets.Net
  symmetry: align.Symmetry
  measure: Callable[[types.Params], types.Tree]
  walk: Callable[[types.Params, types.Params], landscape.Path]
  mesh: jax.sharding.Mesh | None = None


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  module = nets.find(config.model)
  fit, test = examples.read(config)
  _check_sizes(config, len(fit[1]))
  _check_methods(config)
  _check_gauges(config, len(fit[1]))
  net = nets.build(module(**config.model.arguments), jnp.zeros_like(fit[0][:1]))
  # The data are arguments, so that no compiled program holds them.
  few = config.evaluation.get('train', len(fit[1]))
  splits = {'train': jax.tree.map(lambda x: x[:few], fit), 'test': test}
  measure = functools.partial(_measure, net.apply_fn, config.evaluation)
  walk = lambda splits, a, b: landscape.path(
    functools.partial(measure, splits), a, b, points=config.points
  )
  return Setting(
    config,
    fit,
    test,
    net,
    symmetry=_symmetry(config, net, fit[0]),
    measure=functools.partial(jax.jit(measure), splits),
    walk=functools.partial(jax.jit(walk), splits),
  )


def _measure(
  apply_fn: Callable[..., types.Array],
  evaluation: ml_collections.ConfigDict,
  splits: dict[str, nets_training.Examples],
  params: types.Params,
) -> types.Tree:
  """Returns loss and error of a network on both splits."""
  found = {}
  for name, split in splits.items():
    means = train.evaluate(
      apply_fn, params, split, batch_size=evaluation.batch_size
    )
    found[name] = {'loss': means.loss, 'error': 1 - means.accuracy}
  return found


def _check_sizes(config: ml_collections.ConfigDict, count: int) -> None:
  """Checks the numbers of a config against ``count`` training images."""
  few = config.statistics.examples
  checks.sizes(
    {
      'pairs': (config.pairs, 1, None),
      'evaluation.batch_size': (config.evaluation.batch_size, 1, None),
      'statistics.examples': (few, 1, count),
      'statistics.batch_size': (config.statistics.batch_size, 1, few),
      'threshold': (config.threshold, 0, 1),
    }
  )
  every = {'points': config.points}
  if 'repair' in config:
    every['repair.points'] = config.repair.points
  for name, points in every.items():
    if points < 3 or points % 2 == 0:
      raise ValueError(
        f'{name}={points}: expected an odd number, 3 or more: the middle of '
        'the path is one of them'
      )
  nets_training.check(config.training, count)


def _check_methods(config: ml_collections.ConfigDict) -> None:
  """Checks methods and arguments against the signatures of the functions."""
  if not config.methods:
    raise ValueError('methods: none given, name a function of wsl.align')
  for name in config.arguments:
    checks.choice('arguments', name, config.methods, of=' among the methods')
  for name in config.methods:
    function = public_calls.find(name, [align], where='methods')
    operands = [*inspect.signature(function).parameters][:2]
    if operands != ['fixed', 'moving']:
      raise ValueError(
        f"methods: '{name}' does not match two models: weight_matching and "
        'activation_matching do'
      )
    given = config.arguments.get(name, {})
    where = f'arguments.{name}'
    public_calls.check(function, given, supplied=SUPPLIED, where=where)


def _check_gauges(config: ml_collections.ConfigDict, count: int) -> None:
  """Checks the kinds of gauges, and the numbers of the learning of elements."""
  kinds = [kind for new in config.get('ladder', ()) for kind in new]
  for kind in kinds:
    checks.choice('ladder', kind, align.GAUGES)
  if config.get('learned'):
    learned = config.learned
    most = min(count, learned.examples) // learned.batch_size - 1
    checks.sizes(
      {
        'learned.epochs': (learned.epochs, 1, None),
        'learned.batch_size': (learned.batch_size, 1, count),
        'learned.held_out': (learned.held_out, 1, most),
        'learned.path': (tuple(learned.path), 0, 1),
      }
    )


def _symmetry(
  config: ml_collections.ConfigDict, net: nets.Net, images: types.Array
) -> align.Symmetry:
  """Finds the symmetry of the model from shapes."""
  params = jax.eval_shape(net.init, jax.random.key(0))
  batch = images[: config.statistics.batch_size]
  symmetry = align.find_symmetry(net.apply_fn, params, batch)
  if not symmetry.groups:
    raise ValueError(
      f'model: {config.model.module} has no group of units that may be '
      'permuted: there is nothing to align'
    )
  return symmetry


def describe(setting: Setting) -> str:
  """Returns model, training and data in one line, symmetry in another."""
  config, symmetry = setting.config, setting.symmetry
  sizes = tree.sizes(jax.eval_shape(setting.net.init, jax.random.key(0)))
  return (
    f'{config.pairs} pairs of {config.model.module} with '
    f'{sum(sizes.values()):,} parameters; {len(setting.train[1])} training, '
    f'{len(setting.test[1])} test {examples.noun(config)}; '
    f'{nets_training.describe(config.training)}\n'
    f'{len(symmetry.groups)} groups of units, 10^{symmetry.log10_order:.0f} '
    'permutations without effect'
  )


def keys(setting: Setting, stage: int) -> types.PRNGKey:
  """Returns a key for each pair, ``[S]``, different in every stage."""
  return side_by_side.keys(setting.config.seed, stage, setting.config.pairs)


def statistics(setting: Setting) -> list[types.Array]:
  """Returns training images in batches, for statistics without labels."""
  config = setting.config.statistics
  x = setting.train[0][: config.examples]
  return batches.of_images(x, config.batch_size, whole=True)
