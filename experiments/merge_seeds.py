"""How much accuracy does a merge of networks from different seeds retain?

  python -m experiments.merge_seeds --config=configs/merge_seeds.py:digits

First question: two networks learn different tasks from different seeds. How
accurate is their merge at a budget of compute between that of one network and
that of both? PLeaS merges the units that match, keeps the others separate, and
refits every linear map. It is compared with merges of the same shape without
the refit: after weight matching, after activation matching, and unaligned. The
outputs of both tasks are kept; accuracy is the mean over tasks, each with its
own outputs.

Second question: several networks learn one task. All are aligned to the first,
by weights, by activations, by training (straight-through) or jointly, and
averaged. Ito et al. (2024, arXiv:2402.04051) report that training lowers the
barrier to the first network without aligning other pairs, so that weight
matching is better for three or more networks. Does that hold here?
"""

from typing import Any

from experiments import _main
from experiments._merge_seeds import at_budgets, many_networks, report, settings
from experiments._run import experiment, records

NAME = 'merge_seeds'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains networks, aligns them, and merges them."""
  config = setting.config

  # Merge networks of two tasks at budgets of compute.
  pairs = out.arrays('pairs', lambda: at_budgets.networks(setting))
  budgets = out.values('budgets', lambda: at_budgets.measure(setting, pairs))

  # Average many networks of one task.
  crowd = out.arrays('crowd', lambda: many_networks.networks(setting))
  many = out.values('many', lambda: many_networks.measure(setting, crowd))

  # Write figures, tables and the record.
  summary = report.summarise(config, budgets, many)
  out.log(*summary['budgets'], *summary['many'])
  report.draw_budgets(out.path / 'budgets.png', summary)
  report.draw_many(out.path / 'many.png', summary)
  report.show(out.title, summary)
  return out.finish({**summary, 'results': {'budgets': budgets, 'many': many}})


if __name__ == '__main__':
  _main.main(NAME, run)
