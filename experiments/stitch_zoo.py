"""How similar are pretrained networks of different depths?

  python -m experiments.stitch_zoo --config=configs/stitch_zoo.py:digits

Residual networks of several depths, pretrained on CIFAR-10 (or trained here, on
the digits), are loaded and evaluated. The first blocks of one are then stitched
to the last blocks of another at the same fraction of both depths, without
training: a map of the channels is fitted to a few hundred images without
labels. This gives networks of costs between those of the zoo. Some pairs are
examined closely: with the running moments of the top reset after the stitch,
with maps trained for a few epochs, and with two controls, a random bottom and
the top stitched to itself.
"""

import functools
from typing import Any

from experiments import _main
from experiments._run import console, experiment, records
from experiments._shared import batches
from experiments._stitch_zoo import report, resnets, settings, stitching
from wsl import stitch

NAME = 'stitch_zoo'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Reads or trains networks, and stitches all pairs."""
  config = setting.config

  # Load or train the networks; measure each.
  networks, random = {}, {}
  for depth in config.depths:
    name = settings.name_of(depth)
    found = out.arrays(
      name, functools.partial(resnets.variables, setting, depth)
    )
    networks[name] = resnets.segmented(setting, depth, found)
    if depth in {bottom for bottom, _ in config.close}:
      fresh = functools.partial(resnets.random, setting, depth)
      drawn = out.arrays(f'{name} random', fresh)
      random[depth] = resnets.segmented(setting, depth, drawn)
  alone = out.values('alone', lambda: measure_alone(setting, networks))

  # Stitch the first blocks of each to the last blocks of each other.
  stitches = []
  for bottom in config.depths:
    for top in config.depths:
      if bottom != top:
        close = (bottom, top) in [tuple(pair) for pair in config.close]
        compute = functools.partial(
          stitching.measure,
          setting,
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


def measure_alone(
  setting: settings.Setting, networks: dict[str, stitch.Segmented]
) -> dict[str, Any]:
  """Returns accuracy on all test images, FLOPs and parameters by name."""
  image = setting.test[0][:1]
  costs = stitch.cost(stitch.Family(networks, {}), image)
  tests = batches.cut(setting.test, setting.config.evaluation.batch_size)
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
