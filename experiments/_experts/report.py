"""Tables, claims and figures of dense and sparse language models."""

import pathlib
from typing import Any

import numpy as np

from experiments._experts import merging, settings
from experiments._run import canvas, console, spreads, verdicts

COLOURS = {
  'dense': '#7f7f7f',
  'upcycled': '#1f6fb4',
  'scratch': '#e8871e',
  'M-SMoE': '#1f6fb4',
  'equal counts': '#2a8c4a',
  'uniform weights': '#8c6d31',
  'not aligned': '#e8871e',
  'random groups': '#c2559d',
  'drop': '#7f7f7f',
}
TITLES = {
  'dense': 'dense, continued',
  'upcycled': 'experts, upcycled',
  'scratch': 'experts, from scratch',
}


def summarise(
  setting: settings.Setting,
  base: Any,
  trained: dict[str, dict[str, Any]],
  merges: dict[str, Any],
  tuned: dict[str, Any],
) -> dict[str, Any]:
  """Summarises the measurements.

  Args:
    setting: of the run.
    base: test bits of the base, ``[S][D]``.
    trained: by method and budget, test bits ``[S][D]``.
    merges: by kind of model, from ``merging.measure``.
    tuned: by kind of model, from ``merging.tune``.

  Returns:
    ``rows``, a dict for each trained model; ``merges`` and ``tuned``, by kind
    and variant the spread of the mean over domains; the measurements; and
    ``claims``.
  """
  config = setting.config
  means = {
    method: {budget: np.mean(x, -1) for budget, x in found.items()}
    for method, found in trained.items()
  }
  rows = [_row(setting, 'base', 0.0, np.mean(base, -1))]
  for method, found in means.items():
    rows += [_row(setting, method, float(b), x) for b, x in found.items()]
  merged = {
    kind: {
      name: [spreads.spread(x) for x in np.mean(bits, -1)]
      for name, bits in found['bits'].items()
    }
    for kind, found in merges.items()
  }
  return {
    'domains': list(setting.corpus.names),
    'texts': setting.corpus.texts,
    'flops': setting.flops,
    'averages': list(config.merge.averages),
    'rows': rows,
    'whole': {
      kind: spreads.spread(np.mean(found['whole'], -1))
      for kind, found in merges.items()
    },
    'merged': merged,
    'tuned': {
      kind: {
        name: [spreads.spread(x) for x in np.mean(bits, -1)]
        for name, bits in found.items()
      }
      for kind, found in tuned.items()
    },
    'measured': {
      'base': base, 'trained': trained, 'merges': merges, 'tuned': tuned
    },
    'claims': claims(config, means, merges, tuned),
  }  # fmt: skip


def claims(
  config: Any,
  means: dict[str, dict[str, np.ndarray]],
  merges: dict[str, Any],
  tuned: dict[str, Any],
) -> dict[str, Any]:
  """Judges the claims of the papers in every seed."""
  gains: list[tuple[str, Any]] = []
  for budget, own in means['upcycled'].items():
    for other, words in (
      ('dense', 'continued dense training'),
      ('scratch', 'experts from scratch at equal total compute'),
    ):
      gains.append(
        (
          f'upcycling below {words}, budget {budget}',
          means[other][budget] - own,
        )
      )
  # Groups of one expert are no merge.
  some = [
    i for i, a in enumerate(config.merge.averages) if a < config.experts.count
  ]
  for kind, found in merges.items():
    mean = {
      name: np.mean(x, -1)[some].mean(0) for name, x in found['bits'].items()
    }
    for worse, better, words in (
      ('not aligned', 'M-SMoE', 'aligned below not aligned'),
      ('uniform weights', 'M-SMoE', 'weights by usage below uniform ones'),
      ('random groups', 'M-SMoE', 'groups by router below random ones'),
      (
        'equal counts',
        'M-SMoE',
        'one ranking of layers below equal counts',
      ),
      (merging.DROP, 'equal counts', 'merged below dropped'),
    ):
      gains.append((f'{kind}: {words}', mean[worse] - mean[better]))
  for kind, found in tuned.items():
    after = {name: np.mean(x[1], -1) for name, x in found.items()}
    for worse, words in (
      ('not aligned', 'aligned below not aligned, trained further'),
      (merging.DROP, 'merged below dropped, trained further'),
    ):
      gains.append((f'{kind}: {words}', after[worse] - after['merged']))
  return verdicts.judge(gains)


def _row(
  setting: settings.Setting, method: str, budget: float, x: np.ndarray
) -> dict[str, Any]:
  """Returns a line of the table as numbers."""
  model = 'sparse' if method in settings.KINDS else 'dense'
  paid = 1 + budget if method == 'scratch' else budget
  steps = settings.steps(setting, model, paid) if paid else 0
  return {
    'method': method,
    'budget': budget,
    'steps': steps,
    'flops': steps * setting.flops[model] * setting.config.batch_size
    * setting.config.length,
    'bits': spreads.spread(x),
  }  # fmt: skip


def show(label: str, summary: dict[str, Any]) -> None:
  """Prints the tables and the verdicts."""
  console.show_table(
    label,
    ('method', 'budget', 'steps', 'GFLOPs', 'bits/byte'),
    [
      [
        (
          TITLES.get(row['method'], row['method']),
          f'{row["budget"]:g}',
          str(row['steps']),
          f'{row["flops"] / 1e9:.0f}',
          spreads.text(row['bits'], digits=3),
        )
        for row in summary['rows']
      ]
    ],
    ['test bits for each byte, mean over domains; budget: compute after that '
     'of the base, relative to it.'],
  )  # fmt: skip
  for kind, found in summary['merged'].items():
    console.show_table(
      f'{TITLES[kind]}: experts left in each layer, '
      f'{spreads.text(summary["whole"][kind], digits=3)} with all',
      ('variant', *(f'{a:g}' for a in summary['averages'])),
      [
        [
          (name, *(spreads.text(x, digits=3) for x in bits))
          for name, bits in found.items()
        ]
      ],
      [],
    )
    console.show_table(
      f'{TITLES[kind]}: trained further',
      ('variant', 'before', 'after'),
      [
        [
          (name, *(spreads.text(x, digits=3) for x in pair))
          for name, pair in summary['tuned'][kind].items()
        ]
      ],
      [],
    )
  for claim, found in summary['claims'].items():
    by = ', '.join(f'{value:+.3f}' for value in found['by'])
    console.say(f'{claim}: {verdicts.word(found["by"])} ({by})')


def draw_budgets(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the loss against the compute of each method."""
  fig, ax = canvas.single(8.0, 4.6)
  base = next(row for row in summary['rows'] if row['method'] == 'base')
  for method in TITLES:
    rows = [row for row in summary['rows'] if row['method'] == method]
    x = [row['budget'] for row in rows]
    pairs = [row['bits'] for row in rows]
    if method != 'scratch':
      x, pairs = [0.0, *x], [base['bits'], *pairs]
    mean, deviation = np.array(pairs).T
    canvas.curve(
      ax, x, mean, deviation, colour=COLOURS[method], label=TITLES[method]
    )
  ax.set_xlabel('compute after the base, relative to the base')
  ax.set_ylabel('test bits for each byte')
  canvas.legend(ax, '')
  canvas.save(fig, path)


def draw_merges(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the loss against the number of experts, merged or dropped."""
  kinds = list(summary['merged'])
  fig, panels = canvas.grid(12.5, 4.6, 1, len(kinds))
  for ax, kind in zip(panels[0], kinds):
    for name, pairs in summary['merged'][kind].items():
      mean, deviation = np.array(pairs).T
      canvas.curve(
        ax, summary['averages'], mean, deviation,
        colour=COLOURS[name], label=name,
      )  # fmt: skip
    whole = summary['whole'][kind][0]
    ax.axhline(whole, color=canvas.INK, lw=1, ls=(0, (4, 3)), zorder=1)
    canvas.heading(ax, TITLES[kind])
    ax.set_xlabel('mean number of experts left in a layer')
    ax.invert_xaxis()
  panels[0][0].set_ylabel('test bits for each byte')
  canvas.legend(panels[0][-1], '')
  canvas.save(fig, path)
