"""Which phases does a zoo over temperature and load have?

  python -m experiments.phases --config=configs/phases.py:digits

Yang et al. (2021, arXiv:2107.11228) divide trainings by four metrics of their
loss landscape: training loss, Hessian, mode connectivity between seeds, and
similarity of the outputs of seeds. Load (data for each parameter) and
temperature (noise of SGD) lead from one phase to another; models generalise
best, and average best, where the loss is low, seeds are connected and their
outputs are similar (IV-B). Schürholt et al. (2025, arXiv:2504.18072) published
zoos of this kind.

Here the load is the width of a perceptron and the temperature its learning
rate. The whole zoo is trained side by side in one program; so are all curves.
"""

import functools
from typing import Any

from experiments import _main
from experiments._phases import (
  averages,
  curves,
  figures,
  planes,
  report,
  settings,
  zoo,
)
from experiments._run import experiment, records

NAME = 'phases'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains a zoo, measures it, and labels its phases."""
  config = setting.config

  # Train a network for each width, rate and seed; measure each.
  networks = out.arrays('zoo', functools.partial(zoo.networks, setting))
  single = out.values('networks', lambda: zoo.measure(setting, networks))

  # Train curves between seeds, compare their outputs, and average them.
  paired = out.arrays('curves', lambda: curves.measure(setting, networks))
  bends = paired.pop('bends')
  merged = out.values('averages', lambda: averages.measure(setting, networks))

  # Evaluate the loss on a plane in each phase.
  found = report.metrics(config, single, paired, merged)
  codes = report.label_cells(config, found)
  surfaces = out.values(
    'planes', lambda: planes.measure(setting, networks, bends, codes)
  )

  # Write two figures, a table and the record.
  summary = report.summarise(config, found)
  out.log(*summary['cells'])
  figures.draw(out.path / 'phases.png', config, found)
  figures.draw_planes(out.path / 'planes.png', surfaces)
  report.show(out.title, config, summary)
  return out.finish(summary)


if __name__ == '__main__':
  _main.main(NAME, run)
