"""Is one nested network as good as a network of each width?

  python -m experiments.nested --config=configs/nested.py:digits

The hidden units of all layers are cut to a half, a quarter, an eighth. A nested
network is trained at these sizes, all in each step (MatFormer, Devvrit et al.,
2023, arXiv:2310.07707), or random ones (SortedNet, Valipour et al., 2023,
arXiv:2309.00255). It is compared with a network trained at each size, and with
slices of an ordinary network whose units were sorted by importance. All
networks take the same number of steps on the same batches; with all sizes in a
step, a step costs as much as those of all widths.

Every mixture of sizes over the layers is a slice too (Mix'n'Match). Nested
networks were not trained at mixtures, except for the kind ``mixed``. Accuracy
is set against the FLOPs of the slices.
"""

import functools
from typing import Any

import numpy as np

from experiments import _main
from experiments._nested import accuracy, networks, report, settings
from experiments._run import console, experiment, records
from experiments._shared import side_by_side

NAME = 'nested'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains the networks, and measures all of their slices."""
  config = setting.config

  # Train a network of each width, and nested ones of each kind.
  widths = out.arrays('widths', lambda: networks.single(setting))
  found = {
    kind: out.arrays(kind, functools.partial(networks.nested, setting, kind))
    for kind in config.kinds
  }

  # Measure all slices.
  flops = out.values('costs', lambda: settings.flops(setting))
  results = out.values(
    'slices', functools.partial(measure, setting, widths, found)
  )

  # Write a figure, a table and the record.
  summary = report.summarise(setting, flops, results)
  out.log(*summary['rows'])
  report.draw(out.path / 'slices.png', setting, flops, results)
  report.show(out.title, summary)
  return out.finish({
    **summary, 'choices': setting.choices, 'flops': flops,
    'results': results,
  })  # fmt: skip


def measure(
  setting: settings.Setting, widths: Any, found: dict[str, Any]
) -> dict[str, Any]:
  """Returns the test accuracy of all slices, ``[seeds, slices]``.

  By name: the nested kinds, the ordinary network with its units in each order,
  and ``separate``, which has the uniform sizes only; and ``difference``, the
  largest one between the logits of a cut and of a masked slice.
  """
  uniform = networks.uniform(setting)
  ordinary = side_by_side.pick(widths, 0)
  results: dict[str, Any] = {}
  orders = networks.ORDERS
  with console.progress('slices', len(found) + len(orders) + 1) as tick:

    def note(name: str, values: np.ndarray) -> None:
      results[name] = values.tolist()
      tick(f'{name}: {values.mean():.1f} %')

    for kind, params in found.items():
      note(kind, accuracy.of_slices(setting, params, setting.sizes))
    for order in orders:
      stacked = networks.sorted_units(setting, ordinary, order)
      note(order, accuracy.of_slices(setting, stacked, setting.sizes))
    alone = [
      accuracy.of_slices(setting, side_by_side.pick(widths, i), setting.sizes)
      for i in range(len(uniform))
    ]
    # The network of width i is the slice of that size.
    note('separate', np.stack([x[:, i] for i, x in enumerate(alone)], 1))
  first = side_by_side.pick(next(iter(found.values())), 0)
  results['difference'] = accuracy.difference(setting, first, setting.sizes[-1])
  return results


if __name__ == '__main__':
  _main.main(NAME, run)
