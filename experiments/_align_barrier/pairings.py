"""Pairings of two trained networks: unaligned, aligned, and controls."""

import functools
from typing import Any, NamedTuple

import jax

from experiments._align_barrier import path_metrics, settings
from experiments._run import console, public_calls, records
from experiments._shared import nets_training, side_by_side
from wsl import align, landscape, tree, types

CONTROLS = ('random', 'planted', 'recovered')


class Pairing(NamedTuple):
  """For each pair, a network to be joined to the first one by a line.

  Attributes:
    name: 'naive', a control, or a method.
    second: networks before they are permuted, ``[S, ...]``.
    permutation: of their units, ``[S, ...]``.
  """

  name: str
  second: types.Params
  permutation: align.Permutation


def trained(setting: settings.Setting) -> types.Params:
  """Trains the networks ``[S, 2, ...]``, and sets their running moments."""
  config = setting.config
  stack = nets_training.networks(
    setting.net,
    config.training,
    keys(config.seed, config.pairs),
    setting.train,
    mesh=setting.mesh,
  )
  return paired(setting, stack)


def keys(seed: Any, pairs: int) -> types.PRNGKey:
  """Returns the keys of all networks, ``[2 S]``; the seed may be traced."""
  of_pairs = side_by_side.keys(seed, 0, pairs)
  return jax.vmap(jax.random.split)(of_pairs).reshape(-1)


def paired(setting: settings.Setting, stack: types.Params) -> types.Params:
  """Returns networks ``[2 S, ...]`` as ``[S, 2, ...]``, with their moments."""
  if setting.net.update_fn is not None:
    count = 2 * setting.config.pairs
    each = (side_by_side.pick(stack, i) for i in range(count))
    stack = tree.stack([path_metrics.reset(setting, one) for one in each])
  return side_by_side.fold(stack, -1, 2)


def find(
  setting: settings.Setting,
  networks: types.Params,
  out: records.Run,
) -> list[Pairing]:
  """Returns the second networks unaligned, aligned, and as controls."""
  config, symmetry = setting.config, setting.symmetry
  first, second = (
    jax.tree.map(lambda x, i=i: x[:, i], networks) for i in (0, 1)
  )
  still = tree.stack([align.identity(symmetry)] * config.pairs)
  draw = jax.vmap(
    functools.partial(align.random, symmetry, gauges=('permutation',))
  )
  found = [
    Pairing('naive', second, still),
    Pairing('random', second, draw(settings.keys(setting, 1))),
  ]
  planted = jax.vmap(functools.partial(align.permute, symmetry=symmetry))(
    first, draw(settings.keys(setting, 2))
  )

  def add(name: str, method: str, second: types.Params) -> None:
    compute = functools.partial(_match, setting, name, method, first, second)
    found.append(Pairing(name, second, out.arrays(name, compute, like=still)))

  for method in config.methods:
    add(method, method, second)
  found.append(Pairing('planted', planted, still))
  add('recovered', 'weight_matching', planted)
  return found


def _match(
  setting: settings.Setting,
  name: str,
  method: str,
  first: types.Params,
  second: types.Params,
) -> align.Permutation:
  """Finds the permutation of each second network by one method."""
  function = public_calls.find(method, [align], where='methods')
  keys = settings.keys(setting, 3)
  found = []
  with console.progress(name, setting.config.pairs) as tick:
    for s in range(setting.config.pairs):
      a, b = side_by_side.pick((first, second), s)
      offered = {
        'symmetry': setting.symmetry,
        'key': keys[s],
        'apply_fn': setting.net.apply_fn,
        'batches': settings.statistics(setting),
      }
      taken = public_calls.options(function)
      given = {k: v for k, v in offered.items() if k in taken}
      given |= setting.config.arguments.get(method, {})
      found.append(function(a, b, **given))
      moved = align.permute(b, found[-1], symmetry=setting.symmetry)
      removed = float(landscape.l2_reduction(a, b, moved))
      tick(f'{100 * removed:.1f} % of the distance removed')
  return tree.stack(found)
