"""Stitches of two networks of a setting, with every kind of fit."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import optax

from experiments._run import console
from experiments._shared import batches
from experiments._stitch_zoo import moment_reset, settings
from wsl import stats, stitch, train, types

Pair = tuple[int, int]
Adapters = Mapping[Pair, stitch.Adapter]
Setting = settings.Setting


class Cut(NamedTuple):
  """Two networks and the positions at which they are stitched.

  Attributes:
    bottom: the network that provides the first blocks.
    top: the network that provides the last blocks.
    pairs: positions in both, one for each cut.
  """

  bottom: stitch.Segmented
  top: stitch.Segmented
  pairs: list[Pair]


def measure(
  setting: Setting,
  networks: Mapping[str, stitch.Segmented],
  bottom: int,
  top: int,
  random: stitch.Segmented | None,
) -> dict[str, Any]:
  """Stitches the first blocks of one network to the last ones of another.

  Args:
    setting: images and config.
    networks: by name.
    bottom: depth of the network that provides the first blocks.
    top: depth of the network that provides the last blocks.
    random: a random bottom. If given, the pair is examined closely: also with
      moments reset, trained, with the random bottom, and stitched to itself.

  Returns:
    ``cuts``, the position of each stitch; ``residual`` and ``cka``; ``ways``,
    accuracies by kind of fit and cut; ``flops`` and ``parameters``.
  """
  b, t = (networks[settings.name_of(depth)] for depth in (bottom, top))
  cut = Cut(b, t, cuts(setting, bottom, top))
  images = settings.fit_batches(setting)
  moments = stitch.moments(b, t, images, pairs=cut.pairs)
  kinds = list(setting.config.kinds)[: None if random is not None else 1]
  fitted = {kind: fit(moments, kind) for kind in kinds}
  ways: dict[str, list[float]] = {}
  steps = 1 if random is None else 2 * len(kinds) + 3
  with console.progress(f'{bottom} on {top}', steps) as tick:
    for way, compute in attempts(setting, cut, random, fitted):
      ways[way] = compute()
      tick(f'{way} {100 * max(ways[way]):.1f} % at best')
  sizes = costs(setting, networks, bottom, top, fitted[kinds[0]])
  return {
    'bottom': bottom,
    'top': top,
    'cuts': list(setting.config.cuts),
    'pairs': cut.pairs,
    'residual': [float(stats.residual(moments[pair])) for pair in cut.pairs],
    'cka': [float(stats.cka(moments[pair])) for pair in cut.pairs],
    'ways': ways,
    'flops': [sizes[pair].flops for pair in cut.pairs],
    'parameters': [sizes[pair].parameters for pair in cut.pairs],
  }


def attempts(
  setting: Setting,
  cut: Cut,
  random: stitch.Segmented | None,
  fitted: Mapping[str, Adapters],
) -> list[tuple[str, Callable[[], list[float]]]]:
  """Returns every kind of fit with a function that computes its accuracies.

  Args:
    setting: images and config.
    cut: networks and positions.
    random: a random bottom; without it there are no controls.
    fitted: adapters by kind, the main kind first.
  """
  call = functools.partial
  first, *rest = fitted
  if random is None:
    return [(first, call(accuracies, setting, cut, fitted[first]))]
  found = []
  for kind in (first, *rest):
    adapters = fitted[kind]
    found.append((kind, call(accuracies, setting, cut, adapters)))
    reset = call(after_reset, setting, cut, adapters)
    found.append((f'{kind}, reset', reset))
  train = lambda: accuracies(setting, cut, tuned(setting, cut, fitted[first]))
  own = Cut(cut.top, cut.top, [(q, q) for _, q in cut.pairs])
  drawn = cut._replace(bottom=random)
  return [
    *found,
    ('trained', train),
    ('random', call(control, setting, drawn, first)),
    ('itself', call(control, setting, own, first)),
  ]


def control(setting: Setting, cut: Cut, kind: str) -> list[float]:
  """Returns the accuracies of another bottom, with adapters of its own."""
  images = settings.fit_batches(setting)
  moments = stitch.moments(cut.bottom, cut.top, images, pairs=cut.pairs)
  return accuracies(setting, cut, fit(moments, kind))


def fit(
  moments: Mapping[Pair, types.CrossMoments], kind: str
) -> dict[Pair, stitch.Adapter]:
  """Fits adapters; without their ridge, all have the same tree structure."""
  found = stitch.fit_each(moments, kind=kind)
  return {
    pair: dataclasses.replace(adapter, ridge=None)
    for pair, adapter in found.items()
  }


def cuts(setting: Setting, bottom: int, top: int) -> list[Pair]:
  """Returns the positions of each cut in both networks, one for each cut."""
  return [
    (settings.position(bottom, cut), settings.position(top, cut))
    for cut in setting.config.cuts
  ]


def accuracies(setting: Setting, cut: Cut, adapters: Adapters) -> list[float]:
  """Returns the test accuracy of each stitch, in the order of ``cut.pairs``."""
  config = setting.config.evaluation
  examples = jax.tree.map(lambda x: x[: config.examples], setting.test)
  tests = batches.cut(examples, config.batch_size)
  errors = stitch.cut_errors(cut.bottom, cut.top, adapters, tests)
  return [1 - errors[pair] for pair in cut.pairs]


def tuned(setting: Setting, cut: Cut, adapters: Adapters) -> Adapters:
  """Trains adapters further, on labels; the networks are frozen."""
  config = setting.config.adapters
  steps = config.epochs * (config.examples // config.batch_size)
  rate = optax.cosine_decay_schedule(config.learning_rate, steps)
  optimizer = optax.adam(rate)
  state, _ = train.advance(
    jax.tree_util.Partial(stitch.penalty_loss, (cut.bottom, cut.top)),
    train.start(dict(adapters), optimizer=optimizer),
    jax.tree.map(lambda x: x[: config.examples], setting.train),
    optimizer=optimizer,
    steps=steps,
    batch_size=config.batch_size,
    key=jax.random.key(setting.config.seed),
  )
  return state.params


def after_reset(setting: Setting, cut: Cut, adapters: Adapters) -> list[float]:
  """Returns accuracies after a reset of the top's moments for each stitch."""
  found = []
  for pair in cut.pairs:
    top = moment_reset.reset(setting, cut.bottom, cut.top, pair, adapters[pair])
    own = Cut(cut.bottom, top, [pair])
    found += accuracies(setting, own, {pair: adapters[pair]})
  return found


def costs(
  setting: Setting,
  networks: Mapping[str, stitch.Segmented],
  bottom: int,
  top: int,
  adapters: Adapters,
) -> dict[Pair, stitch.Cost]:
  """Returns the size of each stitched network, for one image."""
  b, t = settings.name_of(bottom), settings.name_of(top)
  family = stitch.Family(
    {name: networks[name] for name in (b, t)},
    {str(pair): adapter for pair, adapter in adapters.items()},
  )
  parts = stitch.cost(family, setting.test[0][:1])
  depth = networks[t].depth

  def route(pair: Pair) -> stitch.Route:
    pieces = stitch.Piece(b, 0, pair[0]), stitch.Piece(t, pair[1], depth)
    return stitch.Route(pieces, (str(pair),))

  return {pair: stitch.route_cost(parts, route(pair)) for pair in adapters}
