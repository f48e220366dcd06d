"""Can three trained networks become tens of networks, and is it worth it?

Three widths of one vision transformer are trained. Small ones then begin and
large ones end: an affine map, by least squares on a hundred images, takes the
features of one to those of the other at many places (SN-Net), or there and back
(SN-Netv2). The stitched networks are measured as they are, and after joint
training that draws one of them at every step, all by one compiled function.

What is it for, when a network of any size can be distilled from the largest?
Students of widths between the anchors' are trained for the same cost: all of
them together for what the joint training takes, and each of them. Beside each
accuracy stands what its training cost.

Two more questions: what joint training does to the anchors themselves, and
whether stitches chosen by the similarity of the features on both sides are
better than stitches chosen at random, before training and after it.

  python -m experiments.stitch_family --config=configs/stitch_family.py:digits

Hardware, minutes and the numbers to expect are in the config's docstring.
"""

import functools
from typing import Any

import ml_collections

from experiments import _main
from experiments._run import console, records
from experiments._stitch_family import (
  figures,
  joint,
  settings,
  students,
  tables,
  training,
  untrained,
)

NAME = 'stitch_family'


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains anchors, stitches them, and trains what they are compared to.

  Args:
    config: see ``configs/stitch_family.py``.
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
  console.say(settings.describe(setting))
  out.begin()

  # Train the anchors, and stitch them by least squares.
  anchors = out.arrays('anchors', lambda: training.anchors(setting))
  fits = out.values(
    'least_squares', lambda: untrained.least_squares(setting, anchors)
  )
  flops = fits['flops']
  results = {'least_squares': fits}

  # Train the stitched networks jointly: all, two hops, a choice of them.
  for name in ('v1', 'v2'):
    one = functools.partial(joint.sn_net, setting, anchors, flops, name)
    results[name] = out.values(name, one)
  chosen = functools.partial(joint.selections, setting, anchors, flops)
  results.update(out.values('selections', chosen))

  # Train students at the same cost.
  for name in students.METHODS:
    one = functools.partial(students.train, setting, anchors, flops, name)
    results[name] = out.values(name, one)

  # Write figures, a table and the record.
  summary = tables.summarise(setting, results)
  for row in summary['rows']:
    out.log(**row)
  figures.pareto(out.path / 'pareto.png', setting, results, summary)
  figures.similarity(out.path / 'similarity.png', setting, results)
  tables.show(f'{NAME} {config.variant}', summary, out.seconds)
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
