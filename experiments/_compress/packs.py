"""The packs of all experts, by codec and size."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._compress import settings
from experiments._shared import side_by_side, suite_training
from wsl import adapters, codecs, deltas, merge, tree, types


class Decoded(NamedTuple):
  """The task vectors of all experts at one size.

  Attributes:
    stack: decoded, ``[S, T, ...]``.
    bits: stored an entry, without headers, ``[S, T]``.
    headers: bits of the header an entry, ``[S, T]``.
    bounds: order-0 entropy of the symbols an entry, ``[S, T]``.
  """

  stack: types.Deltas
  bits: Any
  headers: Any
  bounds: Any


def _each(
  setting: settings.Setting,
  models: suite_training.Models,
  pack: Callable[[types.Delta, int, int], codecs.Packed],
) -> list[Decoded]:
  """Packs and decodes every expert; one option."""
  seeds, count = setting.suite.config.seeds, len(setting.suite.tasks.names)
  decoded, sizes = [], []
  host = jax.tree.map(np.asarray, models.stack)
  for s, t in np.ndindex(seeds, count):
    packed = pack(side_by_side.pick(host, s, t), s, t)
    decoded.append(tree.read(codecs.decode(packed)))
    sizes.append(codecs.size(packed))
  stack = jax.tree.map(lambda *x: jnp.stack(x), *decoded)
  table = lambda values: np.reshape(values, (seeds, count))
  return [Decoded(
    side_by_side.fold(stack, seeds, count),
    table([(x.bits - x.header) / x.entries for x in sizes]),
    table([x.header / x.entries for x in sizes]),
    table([x.bound / x.entries for x in sizes]),
  )]  # fmt: skip


Options = Iterator[list[Decoded]]


def _compeft(scale: float | str) -> Callable[..., Options]:
  """Returns the options of ComPEFT; its scales are tried by coefficients."""

  def options(
    setting: settings.Setting, models: suite_training.Models, _: Any
  ) -> Options:
    for density in setting.points['compeft']:
      pack: Any = functools.partial(
        codecs.compeft, density=density, scale=scale
      )
      yield _each(setting, models, lambda x, s, t, pack=pack: pack(x))  # type: ignore[misc]

  return options


def _factors(
  setting: settings.Setting, models: suite_training.Models, dtype: Any
) -> list[Any]:
  """Returns the task vectors in factors of the largest rank, by expert."""
  host = jax.tree.map(np.asarray, side_by_side.flat(models.stack))
  most = int(max(setting.points['svd']))
  found = []
  for i in range(len(jax.tree.leaves(host)[0])):
    x = side_by_side.pick(host, i)
    factors = adapters.extract(
      x, rank=most, matrices=tree.flax, dtype=dtype
    ).factors
    found.append(tree.map_named(lambda k, v, f=factors: f.get(k, v), x))
  return found


def _cut(delta: types.Delta, rank: int) -> types.Delta:
  """Returns factors of a smaller rank; other leaves stay."""

  def leaf(x: Any) -> Any:
    if not deltas.is_factors(x):
      return x
    a, b = np.asarray(x.a)[..., :rank, :], np.asarray(x.b)[..., :rank]
    return dataclasses.replace(x, a=a, b=b)

  return jax.tree.map(leaf, delta, is_leaf=deltas.is_factors)


def _skillpack(*, moments: bool) -> Callable[..., Options]:
  """Returns the options of SkillPack, with second moments or without."""

  def options(
    setting: settings.Setting, models: suite_training.Models, grams: Any
  ) -> Options:
    tasks = len(setting.suite.tasks.names)
    bits = [(n or None, b) for n, b in setting.suite.config.bits]
    factors = _factors(setting, models, np.float32)
    for rank in setting.points['skillpack']:

      def pack(_: Any, s: int, t: int, rank: int = int(rank)) -> codecs.Packed:
        return codecs.skillpack(
          _cut(factors[s * tasks + t], rank),
          bits=bits,
          grams=side_by_side.pick(grams, s, t) if moments else None,
          matrices=tree.flax,
        )

      yield _each(setting, models, pack)

  return options


def _svd(
  setting: settings.Setting, models: suite_training.Models, _: Any
) -> Options:
  """Yields factors in float16, of each rank."""
  tasks = len(setting.suite.tasks.names)
  factors = _factors(setting, models, np.float16)
  for rank in setting.points['svd']:

    def pack(_: Any, s: int, t: int, rank: int = int(rank)) -> codecs.Packed:
      return codecs.Packed(_cut(factors[s * tasks + t], rank), 'svd')

    yield _each(setting, models, pack)


def _bitstack(
  setting: settings.Setting, models: suite_training.Models, _: Any
) -> Options:
  """Yields prefixes of one pack for each expert, by budget."""
  blocks = setting.suite.config.blocks
  packs: dict[Any, codecs.Packed] = {}
  for budget in setting.points['bitstack']:

    def pack(x: Any, s: int, t: int, budget: float = budget) -> codecs.Packed:
      if (s, t) not in packs:
        packs[s, t] = codecs.bitstack(
          x, blocks=blocks.most, rank=blocks.rank, matrices=tree.flax
        )
      none = codecs.truncate(packs[s, t], nbytes=1 << 40, order=[])
      size = codecs.size(none)
      # The header is longer by the digits of a few numbers.
      nbytes = (size.bits + size.entries * budget) // 8 + 100
      return codecs.truncate(packs[s, t], nbytes=int(nbytes))

    yield _each(setting, models, pack)


def _families(
  setting: settings.Setting,
  models: suite_training.Models,
  build: Callable[[types.Deltas], merge.TallMasks],
) -> Decoded:
  """Packs the T experts of each seed as one family, and restores them."""
  seeds, count = setting.suite.config.seeds, len(setting.suite.tasks.names)
  restored, sizes = [], []
  for s in range(seeds):
    packed = codecs.masks(build(side_by_side.pick(models.stack, s)))
    family = codecs.decode(packed)
    restored += [tree.read(merge.materialize(family, t)) for t in range(count)]
    sizes.append(codecs.size(packed))
  stack = jax.tree.map(lambda *x: jnp.stack(x), *restored)
  table = lambda values: np.repeat(values, count).reshape(seeds, count)
  return Decoded(
    side_by_side.fold(stack, seeds, count),
    table([(x.bits - x.header) / x.entries for x in sizes]),
    table([x.header / x.entries for x in sizes]),
    table([x.bound / x.entries for x in sizes]),
  )


def _tall(
  setting: settings.Setting, models: suite_training.Models, _: Any
) -> Options:
  """Yields the families of all thresholds, among which tasks choose."""
  bounds = setting.suite.config.thresholds
  build: Any = merge.tall_masks
  yield [
    _families(setting, models, functools.partial(build, threshold=bound))
    for bound in bounds
  ]


def _emr(
  setting: settings.Setting, models: suite_training.Models, _: Any
) -> Options:
  """Yields the family of EMR."""
  yield [_families(setting, models, merge.emr)]


OPTIONS: dict[str, Callable[..., Options]] = {
  'compeft': _compeft(1.0),
  'compeft_mean': _compeft('mean'),
  'skillpack': _skillpack(moments=True),
  'skillpack_plain': _skillpack(moments=False),
  'bitstack': _bitstack,
  'svd': _svd,
  'tall_masks': _tall,
  'emr': _emr,
}
