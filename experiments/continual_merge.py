r"""Do experts that arrive one after another merge as well as all at once?

  python -m experiments.continual_merge \
    --config=configs/continual_merge.py:digits

The protocol of merge_vision, but the experts arrive one by one: a stream keeps
one merged model and sees each expert once. OPCM (Tang et al., 2025,
arXiv:2501.09522) makes each task vector orthogonal to the merge so far, whose
norm stays that of one expert; the authors report 5 to 8 points above the
averages of other streams, and little influence of the order. The other streams
are the running mean, the mean with its variance corrected, and the exponential
mean; task arithmetic is the sum of what has arrived. All are measured after
every arrival, in several random orders.
"""

import functools
from typing import Any

from experiments import _main
from experiments._continual_merge import arrivals, report, settings
from experiments._run import experiment, records
from experiments._shared import suite_training

NAME = 'continual_merge'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains experts, and merges them in the order of their arrival."""
  suite = setting.suite

  # Train a base, and an expert for each task.
  models = suite_training.models(out, suite)

  # Merge them by every stream in every order, and measure each merge.
  results = {
    name: out.values(
      name, functools.partial(arrivals.measure, setting, name, models)
    )
    for name in (*setting.streams, arrivals.SUM)
  }

  # Write a figure, a table and the record.
  summary = report.summarise(results)
  out.log(*summary['rows'])
  report.draw(out.path / 'arrivals.png', summary)
  report.show(out.title, summary)
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
