"""How similar are pretrained networks of different depths?

Residual networks of several depths, pretrained on CIFAR-10 (or trained here, on
the digits), are loaded and evaluated. The first blocks of one are then stitched
to the last blocks of another at the same fraction of both depths, without
training: a map of the channels is fitted to a few hundred images without
labels. This gives networks of costs between those of the zoo. Some pairs are
examined closely: with the running moments of the top reset after the stitch,
with maps trained for a few epochs, and with two controls, a random bottom and
the top stitched to itself.

  python -m experiments.stitch_zoo --config=configs/stitch_zoo.py:digits

Hardware, time and expected numbers are in the docstring of the config.
"""

import functools
from typing import Any

import ml_collections

from experiments import _main
from experiments._run import console, records
from experiments._shared import batches
from experiments._stitch_zoo import report, resnets, stitching
from wsl import models, stitch, types

NAME = 'stitch_zoo'


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Reads or trains networks, and stitches all pairs."""
  out = records.Run(NAME, config, workdir)
  if out.record:
    return out.record
  zoo = resnets.load(config)
  out.begin(resnets.describe(zoo))

  # Load or train the networks; measure each.
  networks, random = {}, {}
  for depth in config.depths:
    name = resnets.name_of(depth)
    found = out.arrays(name, functools.partial(resnets.variables, zoo, depth))
    networks[name] = cut_network(zoo, depth, found)
    if depth in {bottom for bottom, _ in config.close}:
      fresh = functools.partial(resnets.random, zoo, depth)
      drawn = out.arrays(f'{name} random', fresh)
      random[depth] = cut_network(zoo, depth, drawn)
  alone = out.values('alone', lambda: measure_alone(zoo, networks))

  # Stitch the first blocks of each to the last blocks of each other.
  stitches = []
  for bottom in config.depths:
    for top in config.depths:
      if bottom != top:
        close = (bottom, top) in [tuple(pair) for pair in config.close]
        compute = functools.partial(
          stitching.measure,
          zoo,
          networks,
          bottom,
          top,
          random[bottom] if close else None,
        )
        stitches.append(out.values(f'{bottom} on {top}', compute))

  # Write figures, tables and the record.
  out.log(*stitches)
  report.draw_costs(out.path / 'costs.png', alone, stitches)
  report.draw_cuts(out.path / 'cuts.png', alone, stitches)
  report.show(out.title, alone, stitches)
  return out.finish({'alone': alone, 'stitches': stitches})


def cut_network(
  zoo: resnets.Zoo, depth: int, variables: types.Params
) -> stitch.Segmented:
  """Returns a network cut between its blocks."""
  module = resnets.module(zoo.config, depth)
  return stitch.Segmented(*models.segments(module, variables))


def measure_alone(
  zoo: resnets.Zoo, networks: dict[str, stitch.Segmented]
) -> dict[str, Any]:
  """Returns accuracy on all test images, FLOPs and parameters by name."""
  image = zoo.test[0][:1]
  costs = stitch.cost(stitch.Family(networks, {}), image)
  tests = batches.cut(zoo.test, zoo.config.evaluation.batch_size)
  found = {}
  with console.progress('alone', len(networks)) as tick:
    for name, network in networks.items():
      whole = {(0, 0): stitch.Adapter()}
      error = stitch.cut_errors(network, network, whole, tests)[0, 0]
      piece = stitch.Piece(name, 0, network.depth)
      size = stitch.route_cost(costs, stitch.Route((piece,)))
      found[name] = {'accuracy': 1 - error, **size._asdict()}
      tick(f'{name} {100 - 100 * error:.2f} %')
  return found


if __name__ == '__main__':
  _main.main(NAME, run)
