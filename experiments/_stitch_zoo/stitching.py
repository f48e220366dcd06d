"""Stitches of two networks of a zoo, with every kind of fit."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

import jax
import optax

from experiments._run import console
from experiments._shared import batches
from experiments._stitch_zoo import moment_reset, resnets
from wsl import stats, stitch, train, types

Pair = tuple[int, int]


def measure(
  zoo: resnets.Zoo,
  networks: Mapping[str, stitch.Segmented],
  bottom: int,
  top: int,
  random: stitch.Segmented | None,
) -> dict[str, Any]:
  """Stitches the first blocks of one network to the last ones of another.

  Args:
    zoo: images and config.
    networks: by name.
    bottom: depth of the network that provides the first blocks.
    top: depth of the network that provides the last blocks.
    random: a random bottom. If given, the pair is examined closely: also with
      moments reset, trained, with the random bottom, and stitched to itself.

  Returns:
    ``cuts``, the position of each stitch; ``residual`` and ``cka``; ``ways``,
    accuracies by kind of fit and cut; ``flops`` and ``parameters``.
  """
  b, t = (networks[resnets.name_of(depth)] for depth in (bottom, top))
  pairs = cuts(zoo, bottom, top)
  moments = stitch.moments(b, t, resnets.fit_batches(zoo), pairs=pairs)
  kinds = list(zoo.config.kinds)[: None if random is not None else 1]
  fitted = {kind: fit(moments, kind) for kind in kinds}
  ways: dict[str, list[float]] = {}
  steps = 1 if random is None else 2 * len(kinds) + 3
  with console.progress(f'{bottom} on {top}', steps) as tick:
    for way, compute in attempts(zoo, b, t, random, fitted, pairs):
      ways[way] = compute()
      tick(f'{way} {100 * max(ways[way]):.1f} % at best')
  sizes = costs(zoo, networks, bottom, top, fitted[kinds[0]])
  return {
    'bottom': bottom,
    'top': top,
    'cuts': list(zoo.config.cuts),
    'pairs': pairs,
    'residual': [float(stats.residual(moments[pair])) for pair in pairs],
    'cka': [float(stats.cka(moments[pair])) for pair in pairs],
    'ways': ways,
    'flops': [sizes[pair].flops for pair in pairs],
    'parameters': [sizes[pair].parameters for pair in pairs],
  }


def attempts(
  zoo: resnets.Zoo,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  random: stitch.Segmented | None,
  fitted: Mapping[str, Mapping[Pair, stitch.Adapter]],
  pairs: list[Pair],
) -> list[tuple[str, Callable[[], list[float]]]]:
  """Returns every kind of fit with a function that computes its accuracies.

  Args:
    zoo: images and config.
    bottom: the network that provides the first blocks.
    top: the network that provides the last blocks.
    random: a random bottom; without it there are no controls.
    fitted: adapters by kind, the main kind first.
    pairs: positions of each cut.
  """
  call = functools.partial
  measured = call(accuracies, zoo, bottom, top)
  first, *rest = fitted
  if random is None:
    return [(first, call(measured, fitted[first], pairs))]
  found = []
  for kind in (first, *rest):
    adapters = fitted[kind]
    again = call(after_reset, zoo, bottom, top, adapters, pairs)
    found.append((kind, call(measured, adapters, pairs)))
    found.append((f'{kind}, reset', again))
  own = [(q, q) for _, q in pairs]
  return [
    *found,
    (
      'trained',
      lambda: measured(tuned(zoo, bottom, top, fitted[first]), pairs),
    ),
    ('random', call(control, zoo, random, top, pairs, first)),
    ('itself', call(control, zoo, top, top, own, first)),
  ]


def control(
  zoo: resnets.Zoo,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  pairs: list[Pair],
  kind: str,
) -> list[float]:
  """Returns the accuracies of another bottom, with adapters of its own."""
  moments = stitch.moments(bottom, top, resnets.fit_batches(zoo), pairs=pairs)
  return accuracies(zoo, bottom, top, fit(moments, kind), pairs)


def fit(
  moments: Mapping[Pair, types.CrossMoments], kind: str
) -> dict[Pair, stitch.Adapter]:
  """Fits adapters; without their ridge, all have the same tree structure."""
  found = stitch.fit_each(moments, kind=kind)
  return {
    pair: dataclasses.replace(adapter, ridge=None)
    for pair, adapter in found.items()
  }


def cuts(zoo: resnets.Zoo, bottom: int, top: int) -> list[Pair]:
  """Returns the positions of each cut in both networks, one for each cut."""
  return [
    (resnets.position(bottom, cut), resnets.position(top, cut))
    for cut in zoo.config.cuts
  ]


def accuracies(
  zoo: resnets.Zoo,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  adapters: Mapping[Pair, stitch.Adapter],
  pairs: list[Pair],
) -> list[float]:
  """Returns the test accuracy of each stitch, in the order of ``pairs``."""
  config = zoo.config.evaluation
  examples = jax.tree.map(lambda x: x[: config.examples], zoo.test)
  tests = batches.cut(examples, config.batch_size)
  errors = stitch.cut_errors(bottom, top, adapters, tests)
  return [1 - errors[pair] for pair in pairs]


def tuned(
  zoo: resnets.Zoo,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  adapters: Mapping[Pair, stitch.Adapter],
) -> Mapping[Pair, stitch.Adapter]:
  """Trains adapters further, on labels; the networks are frozen."""
  config = zoo.config.adapters
  steps = config.epochs * (config.examples // config.batch_size)
  rate = optax.cosine_decay_schedule(config.learning_rate, steps)
  optimizer = optax.adam(rate)
  state, _ = train.advance(
    jax.tree_util.Partial(stitch.penalty_loss, (bottom, top)),
    train.start(dict(adapters), optimizer=optimizer),
    jax.tree.map(lambda x: x[: config.examples], zoo.train),
    optimizer=optimizer,
    steps=steps,
    batch_size=config.batch_size,
    key=jax.random.key(zoo.config.seed),
  )
  return state.params


def after_reset(
  zoo: resnets.Zoo,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  adapters: Mapping[Pair, stitch.Adapter],
  pairs: list[Pair],
) -> list[float]:
  """Returns accuracies after a reset of the top's moments for each stitch."""
  found = {}
  for pair, adapter in adapters.items():
    own = moment_reset.reset(zoo, bottom, top, pair, adapter)
    found[pair] = accuracies(zoo, bottom, own, {pair: adapter}, [pair])[0]
  return [found[pair] for pair in pairs]


def costs(
  zoo: resnets.Zoo,
  networks: Mapping[str, stitch.Segmented],
  bottom: int,
  top: int,
  adapters: Mapping[Pair, stitch.Adapter],
) -> dict[Pair, stitch.Cost]:
  """Returns the size of each stitched network, for one image."""
  b, t = resnets.name_of(bottom), resnets.name_of(top)
  family = stitch.Family(
    {name: networks[name] for name in (b, t)},
    {str(pair): adapter for pair, adapter in adapters.items()},
  )
  parts = stitch.cost(family, zoo.test[0][:1])
  depth = networks[t].depth

  def route(pair: Pair) -> stitch.Route:
    pieces = stitch.Piece(b, 0, pair[0]), stitch.Piece(t, pair[1], depth)
    return stitch.Route(pieces, (str(pair),))

  return {pair: stitch.route_cost(parts, route(pair)) for pair in adapters}
