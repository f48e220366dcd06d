"""What does an operation cost, and does its formula predict it?

  python -m experiments.scale_study --config=configs/scale_study.py:cores

A formula states for each operation how often it reads and writes a model, how
many operations and products it computes, what devices send each other, and what
a device holds. Two questions follow. Are the bytes of the formulas those of the
compiled programs, for T models on D devices? And do they, with the measured
rates of the machine, predict the time? With the rates of a data sheet the same
formulas then tell what a merge of eight models of 7 or 70 billion parameters
takes on a pod.

The devices of a CPU are virtual: they share its cores. Rates are therefore
measured while all devices work, and are those of one device. A merge is not
faster on more of them; what is tested there are bytes, exchanges and memory.
"""

import functools
from typing import Any

from experiments import _main
from experiments._run import experiment, records
from experiments._scale_study import (
  disk,
  figures,
  measure,
  pods,
  report,
  settings,
  tables,
)

NAME = 'scale_study'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Counts and times operations, and predicts them on a pod."""
  config = setting.config

  # Count and time every operation on each number of devices.
  found = {}
  for devices in setting.devices:
    measured = functools.partial(measure.on, setting, devices)
    found[devices] = out.values(f'devices_{devices}', measured)

  # Stream merges from files.
  files = out.path / 'files'
  streamed = out.values('disk', lambda: disk.measure(setting, files))

  # Predict large models on a pod, and compile for it if its compiler is there.
  names = config.operations
  paper = pods.on_paper(config.pod, names)
  checked: list[Any] = []
  if config.pod.compiled:
    names = config.pod.compiled
    checked = out.values(
      'compiled', lambda: pods.compile_all(config.pod, names)
    )

  # Write figures, tables and the record.
  summary = report.summarise(found, streamed, paper, checked)
  out.log(*summary['rows'], *streamed, *paper)
  figures.draw_roofline(out.path / 'roofline.png', summary)
  figures.draw_times(out.path / 'times.png', summary)
  figures.draw_devices(out.path / 'devices.png', summary)
  tables.show(out.title, summary)
  return out.finish(summary)


if __name__ == '__main__':
  _main.main(NAME, run)
