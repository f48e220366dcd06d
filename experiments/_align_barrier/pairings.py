"""Pairings of two trained networks: unaligned, aligned, and controls."""

import functools
from typing import Any, NamedTuple

import jax

from experiments._align_barrier import (
  gauge_controls,
  gauge_rows,
  path_metrics,
  settings,
)
from experiments._run import console, public_calls, records
from experiments._shared import gauge_frames, nets_training, side_by_side
from wsl import align, landscape, tree, types

CONTROLS = ('random', 'planted', 'recovered')


class Pairing(NamedTuple):
  """Networks to be joined by a line, for each pair.

  Attributes:
    name: 'naive', a control, a method, or a row of the ladder of gauges.
    first: networks at one end, ``[S, ...]``.
    second: networks before they are matched to the first ones, ``[S, ...]``.
    moved: the networks at the other end, of the same functions, ``[S, ...]``.
  """

  name: str
  first: types.Params
  second: types.Params
  moved: types.Params


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
  first, second = (_side(networks, i) for i in (0, 1))
  still = tree.stack([align.identity(symmetry)] * config.pairs)
  permute = jax.vmap(functools.partial(align.permute, symmetry=symmetry))
  draw = jax.vmap(
    functools.partial(align.random, symmetry, gauges=('permutation',))
  )
  found = [Pairing('naive', first, second, second)]

  def add(name: str, method: str, second: types.Params) -> None:
    compute = functools.partial(_match, setting, name, method, first, second)
    permutation = out.arrays(name, compute, like=still)
    moved = permute(second, permutation)
    found.append(Pairing(name, first, second, moved))

  if config.get('ladder'):
    for method in config.methods:
      add(method, method, second)
    return found + _over_gauges(setting, networks, out)
  shuffled = permute(second, draw(settings.keys(setting, 1)))
  found.append(Pairing('random', first, second, shuffled))
  for method in config.methods:
    add(method, method, second)
  planted = permute(first, draw(settings.keys(setting, 2)))
  found.append(Pairing('planted', first, planted, planted))
  add('recovered', 'weight_matching', planted)
  return found


def _side(networks: types.Params, i: int) -> types.Params:
  """Returns the first or the second networks ``[S, ...]``."""
  return jax.tree.map(lambda x: x[:, i], networks)


def _over_gauges(
  setting: settings.Setting, networks: types.Params, out: records.Run
) -> list[Pairing]:
  """Returns networks matched over more and more gauges, and the controls."""
  found = []
  for name, kinds in gauge_frames.cumulative(setting.config.ladder).items():
    frame = gauge_rows.frame(setting, networks, kinds)
    first, second = (_side(frame.networks, i) for i in (0, 1))
    compute = functools.partial(gauge_rows.matched, setting, name, frame)
    moved = out.arrays(name, compute)
    found.append(Pairing(name, first, second, moved))
  # The last frame is that of all gauges.
  found.insert(0, Pairing('frame', first, second, second))
  for name in gauge_rows.LEARNED if setting.config.get('learned') else ():
    compute = functools.partial(gauge_rows.learned, setting, name, frame, moved)
    ends = out.arrays(name, compute)
    found.append(Pairing(name, ends['first'], second, ends['second']))
  at_random = functools.partial(gauge_controls.moved_at_random, setting, frame)
  found.append(Pairing('random', first, second, at_random(1, 1)))
  copies = at_random(0, 2)
  found.append(Pairing('planted', first, copies, copies))
  pairs = gauge_controls.planted(setting, frame, copies)
  compute = functools.partial(gauge_rows.matched, setting, 'recovered', pairs)
  moved = out.arrays('recovered', compute)
  found.append(Pairing('recovered', first, copies, moved))
  return found


def left_by_kind(
  setting: settings.Setting, networks: types.Params
) -> dict[str, list[float]]:
  """Returns what is left of planted elements; see ``gauge_controls``."""
  kinds = [*gauge_frames.cumulative(setting.config.ladder).values()][-1]
  frame = gauge_rows.frame(setting, networks, kinds)
  return gauge_controls.left_by_kind(setting, frame)


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
