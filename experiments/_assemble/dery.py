"""A zoo of trained networks, partitioned and reassembled (DeRy)."""

from collections.abc import Callable
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments._assemble import incubation, settings
from experiments._run import console
from experiments._shared import nets, nets_training, one_task, side_by_side
from wsl import models, stats, stitch, train, tree, types

CHOICES = ('naswot', 'held out', 'random')
Networks = dict[str, stitch.Segmented]


class Zoo(NamedTuple):
  """Trained networks, and the moments of their features.

  Attributes:
    networks: by name.
    moments: by two names, cross moments of the features after any two blocks.
  """

  networks: Networks
  moments: dict[tuple[str, str], dict[tuple[int, int], types.CrossMoments]]


def trained(setting: settings.Setting) -> types.Params:
  """Trains the networks of the zoo; by name, ``[S, ...]``."""
  config = setting.config.zoo
  found = {}
  for i, (name, network) in enumerate(config.networks.items()):
    key = jax.random.fold_in(jax.random.key(setting.config.seed), 100 + i)
    found[name] = nets_training.networks(
      nets.build(module_of(network), setting.images.train[0][:1]),
      config.training,
      jax.random.split(key, config.seeds),
      setting.images.train,
    )
  return found


def measure(
  setting: settings.Setting, params: types.Params
) -> list[dict[str, Any]]:
  """Reassembles the zoo of every seed.

  Args:
    setting: config, data and model.
    params: from ``trained``.

  Returns:
    For each seed ``networks`` and ``choices``, by name: FLOPs, accuracies, and
    the selected blocks.
  """
  found = []
  with console.progress('zoo', setting.config.zoo.seeds) as tick:
    for s in range(setting.config.zoo.seeds):
      found.append(_one(setting, cut(setting, params, s), s))
      best = found[-1]['choices']['naswot']['fine_tuned']
      tick(f'fine-tuned to {100 * best:.1f} %')
  return found


def cut(setting: settings.Setting, params: types.Params, seed: int) -> Zoo:
  """Segments the networks of one seed, and computes their cross moments."""
  config, networks = setting.config.zoo, {}
  for name, network in config.networks.items():
    own = side_by_side.pick(params[name], seed)
    networks[name] = stitch.Segmented(
      *models.segments(module_of(network), own['params'])
    )
  few = config.statistics.examples
  batches = [setting.images.train[0][:few]]
  moments = {}
  for a, b in itertools.product(networks, repeat=2):
    pairs = itertools.product(
      range(1, networks[a].depth + 1), range(1, networks[b].depth + 1)
    )
    moments[a, b] = stitch.moments(
      networks[a], networks[b], batches, pairs=list(pairs)
    )
  return Zoo(networks, moments)


def _one(setting: settings.Setting, zoo: Zoo, seed: int) -> dict[str, Any]:
  """Partitions and reassembles the zoo of one seed."""
  config, images = setting.config.zoo, setting.images
  costs = stitch.cost(stitch.Family(zoo.networks, {}), images.train[0][:1])
  whole = lambda name, depth: stitch.Route((stitch.Piece(name, 0, depth),))
  node = {name: np.asarray(parts) for name, parts in costs.blocks.items()}
  most = config.budget * max(table[:, 1].sum() for table in node.values())
  depths = {name: len(table) for name, table in node.items()}
  key = jax.random.key(seed)
  partition = stitch.partition(
    similarity(zoo), depths, key=key, count=config.blocks, slack=config.slack
  )
  choose = functools.partial(
    stitch.reassemble, partition, key=key, costs=node, most=[np.inf, most]
  )
  batch = images.train[0][: config.statistics.batch_size]
  random = np.random.RandomState(seed)
  scores: dict[str, Callable[..., float]] = {
    'naswot': lambda p: float(
      stitch.naswot(stitch.features(_network(zoo, p)[0], batch)[1:])
    ),
    'held out': lambda p: _accuracy(_network(zoo, p)[0], images.held_out),
    'random': lambda p: random.rand(),
  }
  found = {}
  for name in CHOICES:
    restarts = 1 if name == 'random' else 5
    pieces = choose(scores[name], restarts=restarts).pieces
    found[name] = _tuned(setting, zoo, pieces, seed)
  return {
    'similarity': partition.similarity,
    'partition': {
      name: [[p.start, p.stop] for p in pieces]
      for name, pieces in partition.pieces.items()
    },
    'networks': {
      name: {
        'flops': stitch.route_cost(costs, whole(name, depth)).flops,
        'test': _accuracy(zoo.networks[name], images.test),
      }
      for name, depth in depths.items()
    },
    'choices': found,
  }


def similarity(zoo: Zoo) -> np.ndarray:
  """Returns the CKA of the features after all blocks, network by network."""
  depths = {name: network.depth for name, network in zoo.networks.items()}
  rows = [(name, p + 1) for name, depth in depths.items() for p in range(depth)]
  table = [
    [float(stats.cka(zoo.moments[a, b][p, q])) for b, q in rows]
    for a, p in rows
  ]
  # The moments of (a, b) and (b, a) are summed in different orders.
  both = np.asarray(table)
  return (both + both.T) / 2


def _network(
  zoo: Zoo, pieces: tuple[stitch.Piece, ...]
) -> tuple[stitch.Segmented, stitch.Route, stitch.Family]:
  """Joins pieces by maps fitted with least squares."""
  adapters, names = {}, []
  for one, two in itertools.pairwise(pieces):
    names.append(f'{one.model}_{one.stop}_{two.model}_{two.start}')
    moments = zoo.moments[one.model, two.model][one.stop, two.start]
    adapters[names[-1]] = stitch.fit_moments(moments)
  family = stitch.Family(zoo.networks, adapters)
  route = stitch.Route(pieces, tuple(names))
  return stitch.materialize(family, route), route, family


def _tuned(
  setting: settings.Setting,
  zoo: Zoo,
  pieces: tuple[stitch.Piece, ...],
  seed: int,
) -> dict[str, Any]:
  """Measures a choice before and after fine-tuning, and from scratch."""
  images = setting.images
  net, route, family = _network(zoo, pieces)
  costs = stitch.cost(family, images.train[0][:1])
  key = jax.random.fold_in(jax.random.key(setting.config.seed), 200 + seed)
  return {
    'pieces': [list(piece) for piece in pieces],
    'flops': stitch.route_cost(costs, route).flops,
    'joined': _accuracy(net, images.test),
    'fine_tuned': _advanced(setting, net, key),
    'from_nothing': _advanced(setting, _drawn(net, key), key),
  }


def _drawn(net: stitch.Segmented, key: types.PRNGKey) -> stitch.Segmented:
  """Reinitialises every matrix of a network, with variance 1 / inputs."""
  numbers = itertools.count()

  def draw(name: str, x: types.Array) -> types.Array:
    if x.ndim > 1:
      own = jax.random.fold_in(key, next(numbers))
      return jax.random.normal(own, x.shape, x.dtype) * x.shape[-2] ** -0.5
    return jnp.ones_like(x) if name.endswith('scale') else jnp.zeros_like(x)

  return tree.map_named(draw, net)


def _advanced(
  setting: settings.Setting, net: stitch.Segmented, key: types.PRNGKey
) -> float:
  """Trains a network for a few steps and returns its test accuracy."""
  config = setting.config.zoo.fine_tuning
  optimizer = _optimizer(config.learning_rate, config.steps)
  state, _ = train.advance(
    incubation.network_loss,
    train.start(net, optimizer=optimizer),
    setting.images.train,
    optimizer=optimizer,
    steps=config.steps,
    batch_size=config.batch_size,
    key=key,
  )
  return _accuracy(state.params, setting.images.test)


@functools.cache
def _optimizer(rate: float, steps: int) -> optax.GradientTransformation:
  """Caches the optimizer, so that networks of equal shape compile once."""
  return train.adamw(rate, steps=steps)


def _accuracy(net: stitch.Segmented, split: one_task.Examples) -> float:
  """Returns the share of images that a network classifies correctly."""
  guesses = jnp.argmax(stitch.apply(net, split[0]), -1)
  right = guesses.astype(jnp.int32) == split[1]
  return float(jnp.mean(right.astype(jnp.float32)))


def module_of(network: ml_collections.ConfigDict) -> Any:
  """Returns the Flax module of a network of the config."""
  return nets.find(network)(**network.arguments)
