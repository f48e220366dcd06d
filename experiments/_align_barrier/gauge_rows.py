"""Networks matched over more and more kinds of gauges, and learned matching."""

import functools
from typing import NamedTuple

import jax
import optax

from experiments._align_barrier import settings
from experiments._run import console
from experiments._shared import (
  batches,
  gauge_frames,
  nets,
  nets_training,
  side_by_side,
)
from wsl import align, landscape, tree, types

LEARNED = ('learned_one', 'learned')


class Frame(NamedTuple):
  """Networks in the form in which gauges of some kinds are matched.

  Attributes:
    kinds: of the gauges, permutations included.
    symmetry: of the networks in this form.
    networks: ``[S, 2, ...]``, of the same functions as the trained ones.
  """

  kinds: tuple[str, ...]
  symmetry: align.Symmetry
  networks: types.Params


def frame(
  setting: settings.Setting, networks: types.Params, kinds: tuple[str, ...]
) -> Frame:
  """Brings networks ``[S, 2, ...]`` into the form that some kinds need."""
  flat = side_by_side.flat(networks)
  symmetry, each = gauge_frames.bring(
    setting.net.apply_fn,
    [side_by_side.pick(flat, i) for i in range(2 * setting.config.pairs)],
    setting.train[0][: setting.config.statistics.batch_size],
    kinds=kinds,
  )
  return Frame(kinds, symmetry, side_by_side.fold(tree.stack(each), -1, 2))


def matched(setting: settings.Setting, name: str, found: Frame) -> types.Params:
  """Returns the second network of each pair, matched to the first."""
  keys = settings.keys(setting, 3)
  seconds = []
  with console.progress(name, setting.config.pairs) as tick:
    for s in range(setting.config.pairs):
      a, b = (side_by_side.pick(found.networks, s, i) for i in (0, 1))
      element = align.weight_matching(
        a, b, symmetry=found.symmetry, key=keys[s], gauges=found.kinds
      )
      seconds.append(align.permute(b, element, symmetry=found.symmetry))
      removed = float(landscape.l2_reduction(a, b, seconds[-1]))
      tick(f'{100 * removed:.1f} % of the distance removed')
  return tree.stack(seconds)


def learned(
  setting: settings.Setting, name: str, found: Frame, start: types.Params
) -> dict[str, types.Params]:
  """Learns gauge elements by the loss on the path.

  Args:
    setting: config, data and model.
    name: ``'learned'`` moves both networks, ``'learned_one'`` the second.
    found: the networks.
    start: the second networks, matched by their weights, ``[S, ...]``.

  Returns:
    ``first`` and ``second``, ``[S, ...]``.
  """
  config, symmetry = setting.config.learned, found.symmetry
  keys = settings.keys(setting, 4)
  few = jax.tree.map(lambda x: x[: config.examples], setting.train)
  whole = batches.cut(few, config.batch_size)
  whole = [one for one in whole if len(one[1]) == config.batch_size]
  held_out = whole[: config.held_out]
  options = {
    'loss_fn': functools.partial(_loss, setting.net),
    'held_out': held_out,
    'gauges': found.kinds,
    'both': name == 'learned',
    'path': config.path,
    'initial': align.identity(symmetry),
    'optimizer': optax.adam(config.learning_rate),
  }
  firsts, seconds = [], []
  with console.progress(name, setting.config.pairs) as tick:
    for s in range(setting.config.pairs):
      a = side_by_side.pick(found.networks, s, 0)
      b = side_by_side.pick(start, s)
      result = align.learned_matching(
        a,
        b,
        symmetry=symmetry,
        key=keys[s],
        batches=whole[config.held_out :] * config.epochs,
        **options,
      )
      firsts.append(align.permute(a, result.fixed, symmetry=symmetry))
      seconds.append(align.permute(b, result.moving, symmetry=symmetry))
      before, after = result.held_out[0], result.held_out.min()
      tick(f'loss on the path {before:.3f}, learned {after:.3f}')
  return {'first': tree.stack(firsts), 'second': tree.stack(seconds)}


def _loss(
  net: nets.Net, params: types.Params, batch: nets_training.Examples
) -> types.Array:
  """Returns the mean cross-entropy of a batch."""
  return nets_training.loss(net, {}, params['params'], batch)
