"""Stitches of two networks of a zoo, by every way to fit them."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import optax

from experiments import _batches, _console, _zoo
from wsl import align, stats, stitch, train, types

Pair = tuple[int, int]


def measure(
  zoo: _zoo.Zoo,
  networks: Mapping[str, stitch.Segmented],
  bottom: int,
  top: int,
  random: stitch.Segmented | None,
) -> dict[str, Any]:
  """Stitches the first blocks of one network to the last ones of another.

  Args:
    zoo: images and config.
    networks: by name.
    bottom: the depth of the network whose first blocks are taken.
    top: of the one whose last blocks are taken.
    random: a random bottom. If there is one, the pair is looked at closely:
      with the random bottom, stitched on itself, with moments reset, trained.

  Returns:
    ``cuts``, where each stitch is; ``residual`` and ``cka``; ``ways``, the
    accuracies of each way to fit, by cut; ``flops`` and ``parameters``.
  """
  b, t = (networks[_zoo.name_of(depth)] for depth in (bottom, top))
  pairs = cuts(zoo, bottom, top)
  moments = stitch.moments(b, t, _zoo.fit_batches(zoo), pairs=pairs)
  label = f'{bottom} on {top}'
  ways: dict[str, list[float]] = {}
  kinds = list(zoo.config.kinds)[: None if random is not None else 1]
  fitted = {kind: fit(moments, kind) for kind in kinds}
  steps = 1 if random is None else 2 * len(kinds) + 3
  with _console.progress(label, steps) as tick:

    def note(way: str, accuracies: list[float]) -> None:
      ways[way] = accuracies
      tick(f'{way} {100 * max(accuracies):.1f} % at best')

    for kind, adapters in fitted.items():
      note(kind, accuracies(zoo, b, t, adapters, pairs))
      if random is not None:
        note(f'{kind}, reset', after_reset(zoo, b, t, adapters, pairs))
    if random is not None:
      better = tuned(zoo, b, t, fitted[kinds[0]])
      note('trained', accuracies(zoo, b, t, better, pairs))
      for way, other, at in (
        ('random', random, pairs),
        ('itself', t, cuts(zoo, top, top)),
      ):
        control = stitch.moments(other, t, _zoo.fit_batches(zoo), pairs=at)
        adapters = fit(control, kinds[0])
        note(way, accuracies(zoo, other, t, adapters, at))
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


def fit(
  moments: Mapping[Pair, types.CrossMoments], kind: str
) -> dict[Pair, stitch.Adapter]:
  """Fits adapters; without the report of their ridge all are alike."""
  found = stitch.fit_each(moments, kind=kind)
  return {
    pair: dataclasses.replace(adapter, ridge=None)
    for pair, adapter in found.items()
  }


def cuts(zoo: _zoo.Zoo, bottom: int, top: int) -> list[Pair]:
  """Returns the positions of each cut in both networks, one for each cut."""
  return [
    (_zoo.position(bottom, cut), _zoo.position(top, cut))
    for cut in zoo.config.cuts
  ]


def accuracies(
  zoo: _zoo.Zoo,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  adapters: Mapping[Pair, stitch.Adapter],
  pairs: list[Pair],
) -> list[float]:
  """Returns the test accuracy of each stitch, in the order of ``pairs``."""
  config = zoo.config.evaluation
  examples = jax.tree.map(lambda x: x[: config.examples], zoo.test)
  tests = _batches.cut(examples, config.batch_size)
  errors = stitch.cut_errors(bottom, top, adapters, tests)
  return [1 - errors[pair] for pair in pairs]


def tuned(
  zoo: _zoo.Zoo,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  adapters: Mapping[Pair, stitch.Adapter],
) -> Mapping[Pair, stitch.Adapter]:
  """Trains adapters further, on labels; the networks stay as they are."""
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
  zoo: _zoo.Zoo,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  adapters: Mapping[Pair, stitch.Adapter],
  pairs: list[Pair],
) -> list[float]:
  """Returns accuracies after the top's moments were reset, stitch by stitch."""
  found = {}
  for pair, adapter in adapters.items():
    own = reset(zoo, bottom, top, pair, adapter)
    found[pair] = accuracies(zoo, bottom, own, {pair: adapter}, [pair])[0]
  return [found[pair] for pair in pairs]


def reset(
  zoo: _zoo.Zoo,
  bottom: stitch.Segmented,
  top: stitch.Segmented,
  pair: Pair,
  adapter: stitch.Adapter,
) -> stitch.Segmented:
  """Returns the top with the running moments that it has above a stitch."""
  blocks = top.params['blocks']
  rest = range(pair[1], top.depth)
  params = [blocks[i]['params'] for i in rest]
  moments = [blocks[i]['batch_stats'] for i in rest]
  if moments:
    modules = tuple(top.block[i].module for i in rest)
    moments = align.reset_batch_stats(
      jax.tree_util.Partial(Update(pair[0], modules), bottom, adapter, params),
      moments,
      _zoo.fit_batches(zoo),
    )
  new = [{**blocks[i], 'batch_stats': m} for i, m in zip(rest, moments)]
  changed = {**top.params, 'blocks': (*blocks[: pair[1]], *new)}
  return dataclasses.replace(top, params=changed)


@dataclasses.dataclass(frozen=True)
class Update:
  """Runs blocks above a stitch in training mode, for their moments.

  Attributes:
    position: where the bottom is left.
    modules: the blocks above the stitch.
  """

  position: int
  modules: tuple[Any, ...]

  def __call__(
    self,
    bottom: stitch.Segmented,
    adapter: stitch.Adapter,
    params: list[types.Params],
    moments: list[types.Tree],
    x: types.Array,
  ) -> list[types.Tree]:
    """Returns moments that have seen the images."""
    value = stitch.features(bottom, x)[self.position]
    h = stitch.apply_adapter(adapter, value)
    found = []
    for module, own, old in zip(self.modules, params, moments):
      variables = {'params': own, 'batch_stats': old}
      h, new = module.apply(variables, h, train=True, mutable=['batch_stats'])
      found.append(new['batch_stats'])
    return found


def costs(
  zoo: _zoo.Zoo,
  networks: Mapping[str, stitch.Segmented],
  bottom: int,
  top: int,
  adapters: Mapping[Pair, stitch.Adapter],
) -> dict[Pair, stitch.Cost]:
  """Returns the size of each stitched network, for one image."""
  b, t = _zoo.name_of(bottom), _zoo.name_of(top)
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
