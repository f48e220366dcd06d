"""What stands between two networks trained from different seeds?

Their straight line leads over a barrier: each network keeps its hidden units in
an order of its own. The symmetry of the model is found by tracing it; weight
matching and activation matching then look for the permutation of the second
network that brings it near the first, and the barrier is measured again: in
loss and error, on training and test images, by both definitions in use, as the
networks are and with the statistics of each point on the line corrected
(REPAIR, or batch normalisation's moments reset).

Two controls say what the numbers mean. A random permutation of the second
network must leave the barrier as high. If the second network is the first one,
randomly permuted, weight matching must undo that, and leave no barrier.

  python -m experiments.align_barrier --config=configs/align_barrier.py:digits

Hardware, minutes and the numbers to expect are in the config's docstring.
"""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import ml_collections

from experiments import _main
from experiments._align_barrier import figures, path_metrics, settings, tables
from experiments._run import console, public_calls, records
from experiments._shared import nets_training
from wsl import align, landscape, tree, types

NAME = 'align_barrier'
CONTROLS = ('random', 'planted', 'recovered')
SUPPLIED = ('symmetry', 'key', 'apply_fn', 'batches')


class Way(NamedTuple):
  """A second network to walk to: for each pair a network and a permutation.

  Attributes:
    name: 'naive', a control, or a method.
    second: networks before they are permuted, ``[S, ...]``.
    permutation: ``[S, ...]``.
  """

  name: str
  second: types.Params
  permutation: align.Permutation


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains pairs, aligns them, measures the lines between them.

  Args:
    config: see ``configs/align_barrier.py``.
    workdir: folder of this run; parts that are finished there are not
      computed again.

  Returns:
    The record, as in ``record.json``.

  Raises:
    ValueError: naming what is wrong in the config, before anything is trained.
    FileNotFoundError: if the data is missing.
  """
  out = records.Run(NAME, config, workdir)
  if record := out.finished():
    return record
  setting = settings.load(config)
  check(config)
  symmetry = find(setting)
  console.say(settings.describe(setting))
  console.say(
    f'{len(symmetry.groups)} groups of units, 10^{symmetry.log10_order:.0f} '
    'permutations that change nothing'
  )
  out.begin()

  # Train, and look for permutations.
  networks = out.arrays('networks', lambda: trained(setting))
  ways = find_ways(setting, symmetry, networks, out)

  # Walk from each first network to the second, as it is and permuted.
  results = {}
  for way in ways:
    compute = functools.partial(measure, setting, symmetry, networks, way)
    results[way.name] = out.values(f'path.{way.name}', compute)

  # Write figures, a table and the record.
  correction = 'REPAIR' if setting.net.update_fn is None else 'BatchNorm reset'
  summary = tables.summarise(results, correction)
  for row in summary['rows']:
    out.log(**row)
  figures.paths(out.path / 'paths.png', results, correction)
  figures.layers(out.path / 'layers.png', results)
  tables.show(f'{NAME} {config.variant}', summary)
  return out.finish({**summary, 'results': results})


def check(config: ml_collections.ConfigDict) -> None:
  """Checks the methods against their own signatures."""
  if not config.methods:
    raise ValueError('methods: none given, name a function of wsl.align')
  for name in config.arguments:
    if name not in config.methods:
      hint = tree.nearest(name, list(config.methods))
      raise ValueError(f"arguments: no '{name}' among the methods{hint}")
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


def find(setting: settings.Setting) -> align.Symmetry:
  """Returns the symmetry of the model, from shapes alone."""
  params = jax.eval_shape(setting.net.init, jax.random.key(0))
  images = settings.statistics(setting)[0]
  symmetry = align.find_symmetry(setting.net.apply_fn, params, images)
  if not symmetry.groups:
    raise ValueError(
      f'model: {setting.config.model.module} has no group of units that may be '
      'permuted: there is nothing to align'
    )
  return symmetry


def trained(setting: settings.Setting) -> types.Params:
  """Returns the networks ``[S, 2, ...]``, their running moments set."""
  keys = jax.vmap(jax.random.split)(settings.keys(setting, 0)).reshape(-1)
  config = setting.config.training
  flat = nets_training.networks(setting.net, config, keys, setting.train)
  found = jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:]), flat)
  if setting.net.update_fn is None:
    return found
  reset = [
    [
      path_metrics.reset(setting, path_metrics.pick(found, s, i))
      for i in (0, 1)
    ]
    for s in range(setting.config.pairs)
  ]
  return tree.stack([tree.stack(pair) for pair in reset])


def find_ways(
  setting: settings.Setting,
  symmetry: align.Symmetry,
  networks: types.Params,
  out: records.Run,
) -> list[Way]:
  """Returns the second networks as they are, aligned, and as controls."""
  config = setting.config
  first, second = (
    jax.tree.map(lambda x, i=i: x[:, i], networks) for i in (0, 1)
  )
  still = tree.stack([align.identity(symmetry)] * config.pairs)
  draw = jax.vmap(functools.partial(align.random, symmetry))
  ways = [
    Way('naive', second, still),
    Way('random', second, draw(settings.keys(setting, 1))),
  ]
  planted = jax.vmap(functools.partial(align.permute, symmetry=symmetry))(
    first, draw(settings.keys(setting, 2))
  )

  def add(name: str, method: str, second: types.Params) -> None:
    compute = functools.partial(
      match, setting, symmetry, name, method, first, second
    )
    ways.append(Way(name, second, out.arrays(name, compute, like=still)))

  for method in config.methods:
    add(method, method, second)
  ways.append(Way('planted', planted, still))
  add('recovered', 'weight_matching', planted)
  return ways


def match(
  setting: settings.Setting,
  symmetry: align.Symmetry,
  name: str,
  method: str,
  first: types.Params,
  second: types.Params,
) -> align.Permutation:
  """Looks for the permutation of each second network, by one method."""
  function = public_calls.find(method, [align], where='methods')
  keys = settings.keys(setting, 3)
  found = []
  with console.progress(name, setting.config.pairs) as tick:
    for s in range(setting.config.pairs):
      a, b = path_metrics.pick(first, s), path_metrics.pick(second, s)
      offered = {
        'symmetry': symmetry,
        'key': keys[s],
        'apply_fn': setting.net.apply_fn,
        'batches': settings.statistics(setting),
      }
      taken = public_calls.options(function)
      given = {k: v for k, v in offered.items() if k in taken}
      given |= setting.config.arguments.get(method, {})
      found.append(function(a, b, **given))
      moved = align.permute(b, found[-1], symmetry=symmetry)
      removed = float(landscape.l2_reduction(a, b, moved))
      tick(f'{100 * removed:.1f} % of the distance removed')
  return tree.stack(found)


def measure(
  setting: settings.Setting,
  symmetry: align.Symmetry,
  networks: types.Params,
  way: Way,
) -> dict[str, Any]:
  """Measures one way, pair by pair.

  Returns:
    A dict of lists, one entry for each pair: what ``path_metrics.lines`` and
    ``path_metrics.geometry`` find, and ``equal``, whether both ends are one
    network.
  """
  pairs: list[dict[str, Any]] = []
  with console.progress(way.name, setting.config.pairs) as tick:
    for s in range(setting.config.pairs):
      a, b = path_metrics.pick(networks, s, 0), path_metrics.pick(way.second, s)
      permutation = path_metrics.pick(way.permutation, s)
      moved = align.permute(b, permutation, symmetry=symmetry)
      repaired = way.name not in CONTROLS
      same = jax.tree.map(lambda x, y: bool((x == y).all()), a, moved)
      pairs.append(
        {
          **path_metrics.lines(setting, a, moved, repaired=repaired),
          **path_metrics.geometry(setting, a, b, moved),
          'equal': all(jax.tree.leaves(same)),
        }
      )
      rise = pairs[-1]['plain']['above_chord']['test']
      tick(f'barrier {rise["loss"]:.3f} nats, {100 * rise["error"]:.1f} %')
  return {key: [pair[key] for pair in pairs] for key in pairs[0]}


if __name__ == '__main__':
  _main.main(NAME, run)
