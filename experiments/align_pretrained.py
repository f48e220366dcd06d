r"""How much of the distance between pretrained networks is a gauge?

  python -m experiments.align_pretrained \
    --config=configs/align_pretrained.py:style --config.data_dir=FOLDER

Two trained networks of one shape differ in their functions, and in the choice
of one network among all of the same function: the order of units, signs,
scales. The gauges of the networks are found by tracing them. The second network
of each pair is matched to the first over more and more of them, and the line
between both is measured: of classifiers by loss and error, of networks that
make images by the distance of the images from those of both ends.

Four controls calibrate the numbers: a random element of the whole gauge must
leave the line as bad as it was, and be undone by matching; a copy of the first
network that was moved by such an element must be matched exactly; and of a copy
with noise as much must remain as there is noise.
"""

import functools
from typing import Any

from experiments import _main
from experiments._align_pretrained import figures, rows, settings, tables
from experiments._run import console, experiment, records

NAME = 'align_pretrained'


def answer(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Matches each pair over more and more gauges, and measures the lines."""
  results = {}
  for name, pair in setting.pairs(out).items():
    compute = functools.partial(measure, setting, name, pair)
    results[name] = out.values(name, compute)
  summary = tables.summarise(setting, results)
  out.log(*summary['rows'])
  figures.distances(out.path / 'distances.png', results)
  figures.lines(out.path / 'lines.png', setting, results)
  tables.show(out.title, summary)
  return out.finish({**summary, 'results': results})


def measure(
  setting: settings.Setting, name: str, pair: settings.Pair
) -> dict[str, Any]:
  """Measures one pair, row by row.

  Returns:
    By row: how far ``apart`` the networks are, the share of the distance that
    was ``removed``, and the measures along the ``line``.
  """
  found = rows.find(setting, pair)
  results = {}
  with console.progress(name, len(found)) as tick:
    for row in found:
      results[row.name] = rows.measure(setting, row)
      tick(f'{row.name}: {results[row.name]["apart"]:.3f} apart')
  return results


run = experiment.body(NAME, settings.load, settings.describe)(answer)

if __name__ == '__main__':
  _main.main(NAME, run)
