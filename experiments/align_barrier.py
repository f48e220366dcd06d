"""How high is the barrier between two networks trained from different seeds?

  python -m experiments.align_barrier --config=configs/align_barrier.py:digits

The straight line between them crosses a barrier in loss: the order of hidden
units differs. The symmetry of the model is found by tracing it; weight matching
and activation matching search for the permutation of the second network that is
nearest to the first. The barrier is then measured again: in loss and error, on
training and test images, by both definitions in use, with the networks as they
are and with the statistics of each point on the line corrected (REPAIR, or a
reset of the moments of batch normalisation).

Transformers have more gauges than permutations: signs, scales, rotations of the
residual stream, linear maps and phases of heads. With a ladder of their kinds
in the config, pairs are matched over more and more of them, and gauge elements
are learned by the loss on the path (``align.learned_matching``).

Two controls calibrate the numbers. A random permutation of the second network
must leave the barrier as high. If the second network is a random permutation of
the first, weight matching must invert it and remove the barrier. With a ladder
both are elements of the whole gauge.
"""

import functools
from typing import Any

import jax

from experiments import _main
from experiments._align_barrier import (
  examples,
  figures,
  pairings,
  path_metrics,
  points,
  settings,
  tables,
)
from experiments._run import console, experiment, records, sweeps
from experiments._shared import side_by_side

NAME = 'align_barrier'


def answer(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains pairs, aligns them, and measures the paths between them."""
  setting = setting._replace(mesh=out.mesh)

  # Train, and search for permutations.
  networks = out.arrays('networks', lambda: pairings.trained(setting))
  found = pairings.find(setting, networks, out)

  # Measure the line from each first network to the second, permuted or not.
  results = {}
  for pairing in found:
    compute = functools.partial(measure, setting, pairing)
    results[pairing.name] = out.values(f'path.{pairing.name}', compute)

  # Plant elements of one kind of gauge at a time.
  ladder = setting.config.get('ladder', ())
  extra = {}
  if ladder:
    compute = functools.partial(pairings.left_by_kind, setting, networks)
    extra['left_by_kind'] = out.values('left by kind', compute)

  # Write figures, a table and the record.
  correction = 'REPAIR' if setting.net.update_fn is None else 'BatchNorm reset'
  summary = tables.summarise(results, correction, ladder)
  out.log(*summary['rows'])
  noun = examples.noun(setting.config)
  figures.paths(out.path / 'paths.png', results, correction, noun)
  figures.layers(out.path / 'layers.png', results)
  if ladder:
    figures.distances(out.path / 'distances.png', results)
  tables.show(out.title, summary)
  return out.finish({**summary, **extra, 'results': results})


def measure(
  setting: settings.Setting, pairing: pairings.Pairing
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
      a, b, moved = side_by_side.pick(pairing[1:], s)
      repaired = (
        'repair' in setting.config and pairing.name not in pairings.CONTROLS
      )
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


run = experiment.body(NAME, settings.load, settings.describe, on_mesh=True)(
  answer
)
DOOR = sweeps.Door(
  points.NUMBERS, functools.partial(points.points, NAME, answer), points.metrics
)

if __name__ == '__main__':
  _main.main(NAME, run, DOOR)
