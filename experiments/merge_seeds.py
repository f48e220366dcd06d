"""What does a merge of networks from different seeds keep?

Two questions. First: two networks learnt different tasks, from different seeds.
What does a merge of them keep at a budget of compute between that of one
network and that of both? PLeaS merges the units that match, keeps the others
apart and refits every linear map; it is compared to merges of the same shape
without the refit, after weight matching, after activation matching, and as the
networks are. The outputs of both tasks stay side by side, and the accuracy is
the mean over tasks with the task's own outputs.

Second: several networks learnt one task. All are aligned to the first, by
weights, by activations, by training (straight-through) or all at once, and are
averaged. Ito et al. (2024, arXiv:2402.04051) found that training lowers the
barrier to the first network without aligning anything else, so that matching
weights is better for three or more: is it so here?

  python -m experiments.merge_seeds --config=configs/merge_seeds.py:digits

Hardware, minutes and the numbers to expect are in the config's docstring.
"""

from typing import Any

import ml_collections

from experiments import _main
from experiments._merge_seeds import at_budgets, many_networks, report, settings
from experiments._run import console, records
from experiments._shared import nets_training

NAME = 'merge_seeds'


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains networks, merges them, and writes what came out.

  Args:
    config: see ``configs/merge_seeds.py``.
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
  console.say(
    f'{config.seeds} seeds; MLPs of widths {list(config.widths)}; '
    f'{nets_training.describe(config.training)}'
  )
  out.begin()

  # Two tasks, a budget of compute.
  pairs = out.arrays('pairs', lambda: at_budgets.networks(setting))
  budgets = out.values('budgets', lambda: at_budgets.measure(setting, pairs))

  # One task, many networks.
  crowd = out.arrays('crowd', lambda: many_networks.networks(setting))
  many = out.values('many', lambda: many_networks.measure(setting, crowd))

  # Write figures, tables and the record.
  summary = report.summarise(config, budgets, many)
  for row in (*summary['budgets'], *summary['many']):
    out.log(**row)
  report.draw_budgets(out.path / 'budgets.png', summary)
  report.draw_many(out.path / 'many.png', summary)
  report.show(f'{NAME} {config.variant}', summary)
  return out.finish({**summary, 'results': {'budgets': budgets, 'many': many}})


if __name__ == '__main__':
  _main.main(NAME, run)
