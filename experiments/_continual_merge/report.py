"""Table, claims and figure of merges after every arrival."""

import pathlib
from typing import Any

import numpy as np

from experiments._run import canvas, console, spreads, verdicts

COLOURS = ('#1f6fb4', '#e8871e', '#2a8c4a', '#8c6d31', '#c2559d', '#7f7f7f')


def summarise(results: dict[str, Any]) -> dict[str, Any]:
  """Summarises the accuracies.

  Args:
    results: by stream, from ``arrivals.measure``.

  Returns:
    ``rows``: for each stream its mean accuracy on the tasks that have arrived,
    by number of arrivals, each ``[mean, standard deviation]`` over seeds; and
    ``by_order``, the standard deviation over orders once all have arrived.
    ``claims``: whether OPCM is above another stream in every seed, by how much.
  """
  rows, final = [], {}
  for name, found in results.items():
    seen = _on_arrived(found)
    final[name] = seen[:, -1].mean(0)
    by_order = seen[:, -1].std(0, ddof=1) if len(seen) > 1 else 0 * final[name]
    rows.append(
      {
        'stream': name,
        'coef': found['coef'],
        'seen': spreads.columns(seen.mean(0).T),
        'by_order': float(np.mean(by_order)),
      }
    )
  gains = (
    (f'opcm above {name}', final['opcm'] - other)
    for name, other in final.items()
    if 'opcm' in final and name != 'opcm'
  )
  return {'rows': rows, 'claims': verdicts.judge(gains)}


def _on_arrived(found: dict[str, Any]) -> np.ndarray:
  """Returns means over the tasks that have arrived, ``[orders, T, S]``."""
  test, orders = np.asarray(found['test']), np.asarray(found['orders'])
  means = [
    [test[i, n][:, order[: n + 1]].mean(1) for n in range(len(order))]
    for i, order in enumerate(orders)
  ]
  return np.asarray(means)


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the table and the verdicts on the claims."""
  count = len(summary['rows'][0]['seen'])
  table = [
    (
      row['stream'],
      *map(spreads.percent, row['seen']),
      f'{100 * row["by_order"]:.1f}',
    )
    for row in summary['rows']
  ]
  judged = (
    f'{claim}: {verdicts.word(found["by"])}'
    for claim, found in summary['claims'].items()
  )
  console.show_table(
    label,
    ('stream', *(f'{n + 1} arrived' for n in range(count)), 'by order'),
    [table],
    [
      'test accuracy on the tasks that have arrived, %, mean over tasks and '
      'orders; ±: standard deviation over seeds; by order: over orders.',
      '; '.join(judged),
    ],
  )


def draw(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the accuracy against the number of arrivals."""
  fig, ax = canvas.single(8.2, 4.4)
  for row, colour in zip(summary['rows'], COLOURS):
    mean, spread = 100 * np.asarray(row['seen']).T
    x = np.arange(1, len(mean) + 1)
    name = row['stream'].replace('_', ' ')
    canvas.curve(ax, x, mean, spread, colour=colour, label=name)
  ax.set_xticks(x)
  ax.set_xlabel('experts that have arrived')
  ax.set_ylabel('test accuracy on their tasks, %')
  canvas.legend(ax, 'stream')
  canvas.save(fig, path)
