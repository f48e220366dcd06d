"""How high is the barrier between two networks trained from different seeds?

The straight line between them crosses a barrier in loss: the order of hidden
units differs. The symmetry of the model is found by tracing it; weight matching
and activation matching search for the permutation of the second network that is
nearest to the first. The barrier is then measured again: in loss and error, on
training and test images, by both definitions in use, with the networks as they
are and with the statistics of each point on the line corrected (REPAIR, or a
reset of the moments of batch normalisation).

Two controls calibrate the numbers. A random permutation of the second network
must leave the barrier as high. If the second network is a random permutation of
the first, weight matching must invert it and remove the barrier.

  python -m experiments.align_barrier --config=configs/align_barrier.py:digits

Hardware, time and expected numbers are in the docstring of the config.
"""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import ml_collections

from experiments import _main
from experiments._align_barrier import figures, path_metrics, settings, tables
from experiments._run import checks, console, public_calls, records
from experiments._shared import nets_training, side_by_side
from wsl import align, landscape, tree, types

NAME = 'align_barrier'
CONTROLS = ('random', 'planted', 'recovered')
SUPPLIED = ('symmetry', 'key', 'apply_fn', 'batches')


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


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains pairs, aligns them, and measures the paths between them."""
  out = records.Run(NAME, config, workdir)
  if out.record:
    return out.record
  setting = settings.load(config)
  check(config)
  symmetry = find(setting)
  out.begin(
    f'{settings.describe(setting)}\n{len(symmetry.groups)} groups of units, '
    f'10^{symmetry.log10_order:.0f} permutations without effect'
  )

  # Train, and search for permutations.
  networks = out.arrays('networks', lambda: trained(setting))
  found = pairings(setting, symmetry, networks, out)

  # Measure the line from each first network to the second, permuted or not.
  results = {}
  for one in found:
    compute = functools.partial(measure, setting, symmetry, networks, one)
    results[one.name] = out.values(f'path.{one.name}', compute)

  # Write figures, a table and the record.
  correction = 'REPAIR' if setting.net.update_fn is None else 'BatchNorm reset'
  summary = tables.summarise(results, correction)
  out.log(*summary['rows'])
  figures.paths(out.path / 'paths.png', results, correction)
  figures.layers(out.path / 'layers.png', results)
  tables.show(out.title, summary)
  return out.finish({**summary, 'results': results})


def check(config: ml_collections.ConfigDict) -> None:
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
  """Trains the networks ``[S, 2, ...]``, and sets their running moments."""
  keys = jax.vmap(jax.random.split)(settings.keys(setting, 0)).reshape(-1)
  config = setting.config.training
  stack = nets_training.networks(setting.net, config, keys, setting.train)
  if setting.net.update_fn is not None:
    each = (side_by_side.pick(stack, i) for i in range(len(keys)))
    stack = tree.stack([path_metrics.reset(setting, one) for one in each])
  return side_by_side.fold(stack, -1, 2)


def pairings(
  setting: settings.Setting,
  symmetry: align.Symmetry,
  networks: types.Params,
  out: records.Run,
) -> list[Pairing]:
  """Returns the second networks unaligned, aligned, and as controls."""
  config = setting.config
  first, second = (
    jax.tree.map(lambda x, i=i: x[:, i], networks) for i in (0, 1)
  )
  still = tree.stack([align.identity(symmetry)] * config.pairs)
  draw = jax.vmap(functools.partial(align.random, symmetry))
  found = [
    Pairing('naive', second, still),
    Pairing('random', second, draw(settings.keys(setting, 1))),
  ]
  planted = jax.vmap(functools.partial(align.permute, symmetry=symmetry))(
    first, draw(settings.keys(setting, 2))
  )

  def add(name: str, method: str, second: types.Params) -> None:
    compute = functools.partial(
      match, setting, symmetry, name, method, first, second
    )
    found.append(Pairing(name, second, out.arrays(name, compute, like=still)))

  for method in config.methods:
    add(method, method, second)
  found.append(Pairing('planted', planted, still))
  add('recovered', 'weight_matching', planted)
  return found


def match(
  setting: settings.Setting,
  symmetry: align.Symmetry,
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
  pairing: Pairing,
) -> dict[str, Any]:
  """Measures one pairing, pair by pair.

  Returns:
    A dict of lists, one entry for each pair: the values of
    ``path_metrics.along_line`` and ``path_metrics.weights_and_activations``,
    and ``equal``, whether both ends are the same network.
  """
  pairs: list[dict[str, Any]] = []
  with console.progress(pairing.name, setting.config.pairs) as tick:
    for s in range(setting.config.pairs):
      a = side_by_side.pick(networks, s, 0)
      b, permutation = side_by_side.pick(
        (pairing.second, pairing.permutation), s
      )
      moved = align.permute(b, permutation, symmetry=symmetry)
      repaired = pairing.name not in CONTROLS
      same = jax.tree.map(lambda x, y: bool((x == y).all()), a, moved)
      pairs.append(
        {
          **path_metrics.along_line(setting, a, moved, repaired=repaired),
          **path_metrics.weights_and_activations(setting, a, b, moved),
          'equal': all(jax.tree.leaves(same)),
        }
      )
      rise = pairs[-1]['plain']['above_chord']['test']
      tick(f'barrier {rise["loss"]:.3f} nats, {100 * rise["error"]:.1f} %')
  return {key: [pair[key] for pair in pairs] for key in pairs[0]}


if __name__ == '__main__':
  _main.main(NAME, run)
