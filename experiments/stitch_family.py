"""Can three trained networks become tens of networks, and is it worth the cost?

  python -m experiments.stitch_family --config=configs/stitch_family.py:digits

Three widths of one vision transformer are trained. Routes begin in a small one
and end in a large one: an affine map, fitted by least squares on a hundred
images, maps the features of one to those of the other at one of many positions
(SN-Net), or at two (SN-Netv2). The stitched networks are measured without
training, and after joint training that draws one route at every step in a
single compiled function.

The alternative is to distil networks of any size from the largest one. Students
of widths between those of the anchors are trained at the same cost: all of them
together at the cost of the joint training, and each of them. The cost of
training is reported next to each accuracy.

Two more questions: how joint training changes the anchors, and whether stitches
selected by the similarity of the joined features are better than random ones,
before and after training.
"""

import functools
from typing import Any

from experiments import _main
from experiments._run import experiment, records
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


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains anchors, families of stitches, and students."""
  # Train the anchors, and stitch them by least squares.
  anchors = out.arrays('anchors', lambda: training.anchors(setting))
  fits = out.values(
    'least_squares', lambda: untrained.least_squares(setting, anchors)
  )
  fitted = untrained.Fitted(anchors, fits['flops'])
  results = {'least_squares': fits}

  # Train the stitched networks jointly: all, two hops, a choice of them.
  for name in ('v1', 'v2'):
    one = functools.partial(joint.sn_net, setting, fitted, name)
    results[name] = out.values(name, one)
  chosen = functools.partial(joint.selections, setting, fitted)
  results.update(out.values('selections', chosen))

  # Train students at the same cost.
  for name in students.METHODS:
    one = functools.partial(students.train, setting, fitted, name)
    results[name] = out.values(name, one)

  # Write figures, a table and the record.
  summary = tables.summarise(setting, results)
  out.log(*summary['rows'])
  figures.pareto(out.path / 'pareto.png', setting, results, summary)
  figures.similarity(out.path / 'similarity.png', setting, results)
  tables.show(out.title, summary, out.seconds)
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
