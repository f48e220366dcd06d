"""Table, verdicts and figure of the recipes of RegMean."""

import pathlib
from typing import Any

import numpy as np

from experiments._regmean_gap import settings
from experiments._run import canvas, console, spreads

# Accuracy in parts of the experts', ViT-B/32 on eight tasks: 82.4 of 90.3 %.
PUBLISHED = 0.913
BY_DEPTH = {
  'reference': ('RegMean', '#1f6fb4'),
  'inputs=merged': ('RegMean++', '#e8871e'),
  'combined': ('combined', '#2a8c4a'),
}
PEERS = {'mean': 'average', 'sum': 'task arithmetic', 'tsv': 'TSV-M'}


def summarise(
  setting: settings.Setting, own: Any, results: dict[str, Any]
) -> dict[str, Any]:
  """Summarises the accuracies.

  Args:
    setting: recipes and coefficients.
    own: test accuracies of the experts, ``[S][T]``.
    results: by recipe or peer, from ``variants.measure``.

  Returns:
    ``rows``: for each recipe and peer its accuracies with the coefficient 1,
    with the chosen one, and the latter in parts of the experts', each ``[mean,
    standard deviation]`` over seeds. ``verdicts``: for each factor the level
    that is best on validation, and its gains by seed.
  """
  rows = []
  for label, found in results.items():
    test, chosen = (np.asarray(found[k]) for k in ('test', 'chosen'))
    parts = chosen / np.asarray(own)[:, : chosen.shape[1]]
    rows.append(
      {
        'label': label,
        'coef': found['coef'],
        'test': spreads.spread(test.mean(1)),
        'chosen': spreads.spread(chosen.mean(1)),
        'normalised': spreads.spread(parts.mean(1)),
      }
    )
  return {'rows': rows, 'verdicts': _verdicts(setting, results)}


def _verdicts(
  setting: settings.Setting, results: dict[str, Any]
) -> list[dict[str, Any]]:
  """Compares the best level of each factor with the reference.

  The gain is a cause of the gap if it is a point or more in every seed.
  """
  one = setting.coefs.index(1.0)
  factors: dict[str, list[str]] = {}
  for label in setting.recipes:
    factor = label.partition('=')[0]
    if factor not in ('reference', 'tasks'):
      factors.setdefault(factor, []).append(label)
  at_one = lambda label: np.mean(results[label]['validation'][one])
  reference = results['reference']
  gained = [('coefficient', f'{reference["coef"]:g}', _gain(results, 'chosen'))]
  for factor, labels in factors.items():
    best = max(labels, key=at_one)
    level = best.partition('=')[2] or 'all changes, λ = 1'
    gained.append((factor, level, _gain(results, 'test', best)))
  gained.append(
    ('combined and coefficient', f'{results["combined"]["coef"]:g}',
     _gain(results, 'chosen', 'combined'))
  )  # fmt: skip
  return [
    {'factor': factor, 'level': level, 'gain': gain, 'verdict': _verdict(gain)}
    for factor, level, gain in gained
  ]


def _gain(
  results: dict[str, Any], accuracy: str, label: str = 'reference'
) -> list[float]:
  """Returns the gain over the reference with coefficient 1, by seed, in %."""
  mean = lambda values: np.asarray(values).mean(1)
  gain = mean(results[label][accuracy]) - mean(results['reference']['test'])
  return (100 * gain).tolist()


def _verdict(gain: list[float]) -> str:
  """Returns the verdict on the gains of all seeds."""
  if min(gain) >= 1:
    return 'a cause: a point or more in every seed'
  if min(gain) > 0:
    return 'in every seed, not always a point'
  return 'in the mean only' if np.mean(gain) > 0 else 'no cause'


def show(label: str, summary: dict[str, Any], by_depth: dict[str, Any]) -> None:
  """Prints the table, the verdicts, and errors by depth."""
  table = [
    (
      row['label'],
      spreads.percent(row['test']),
      spreads.percent(row['chosen']),
      f'{row["coef"]:g}',
      spreads.percent(row['normalised']),
    )
    for row in summary['rows']
  ]
  lines = [
    f'{v["factor"]} = {v["level"]}: '
    f'{", ".join(f"{gain:+.1f}" for gain in v["gain"])}: {v["verdict"]}'
    for v in summary['verdicts']
  ]
  console.show_table(
    label,
    ('recipe', 'λ = 1', 'λ chosen', 'λ', 'of experts'),
    [table],
    [
      'test accuracy, %, mean over tasks; ±: standard deviation over seeds; λ: '
      'best on validation images; of experts: with that λ; on CLIP RegMean has '
      f'{100 * PUBLISHED:.1f} %.',
      'gains over the reference in points, by seed:',
      *lines,
      'error and retained part of the change of outputs, by block, λ = 1:',
      *(
        f'{BY_DEPTH[label][0]}, {scope}: {_pairs(found, scope)}'
        for label, found in by_depth.items()
        for scope in ('local', 'accumulated')
      ),
    ],
  )


def _pairs(found: dict[str, Any], scope: str) -> str:
  """Formats means over seeds of errors and slopes of all blocks."""
  error, slope = (np.mean(found[k][scope], 0) for k in ('error', 'slope'))
  return ', '.join(f'{e:.2f} {s:.2f}' for e, s in zip(error, slope))


def draw(
  path: pathlib.Path,
  setting: settings.Setting,
  summary: dict[str, Any],
  by_depth: dict[str, Any],
) -> None:
  """Draws the accuracy of every recipe, and errors and accuracies by depth."""
  fig, ((recipes, errors, accuracies),) = canvas.grid(16, 6.2, 1, 3)
  _draw_recipes(recipes, summary['rows'])
  blocks = [block.split('|')[-1].strip('^/') for block in setting.blocks]
  for label, found in by_depth.items():
    name, colour = BY_DEPTH[label]
    for scope, style in (('local', ':'), ('accumulated', '-')):
      mean, spread = np.transpose(spreads.columns(found['error'][scope]))
      canvas.curve(
        errors, range(len(blocks)), mean, spread, colour=colour, ls=style,
        label=f'{name}, {scope}',
      )  # fmt: skip
    mean, spread = 100 * np.transpose(
      spreads.columns(np.transpose(found['accuracy']))
    )
    accuracies.set_xticks(range(len(mean)))
    canvas.curve(
      accuracies, range(len(mean)), mean, spread, colour=colour, label=name
    )
  errors.set_xticks(range(len(blocks)), blocks, rotation=30, ha='right')
  errors.set_ylabel("error of outputs, parts of the expert's change")
  top = errors.get_ylim()[1]
  errors.set_ylim(0, 1.35 * top)
  errors.legend(frameon=False, fontsize=10, ncols=2, loc='upper left')
  canvas.heading(errors, 'Error of each block, λ = 1')
  accuracies.set_xlabel('merged blocks, the others are the expert’s')
  accuracies.set_ylabel('test accuracy, %')
  accuracies.legend(frameon=False, fontsize=10)
  canvas.heading(accuracies, 'Experts whose first blocks are merged, λ = 1')
  canvas.save(fig, path)


def _draw_recipes(ax: Any, rows: list[dict[str, Any]]) -> None:
  """Draws accuracies relative to the experts' as points, a line per recipe."""
  shown = [row for row in rows if 'tasks=' not in row['label']]
  whole = max(int(r['label'].split()[-1]) for r in rows if ' of ' in r['label'])
  shown = [
    row
    for row in shown
    if ' of ' not in row['label'] or row['label'].endswith(f' of {whole}')
  ]
  for place, row in enumerate(reversed(shown)):
    for key, colour in (('test', '#7f7f7f'), ('chosen', '#1f6fb4')):
      mean, spread = 100 * np.asarray(row[key])
      name = {'test': 'λ = 1', 'chosen': 'λ from validation'}[key]
      ax.errorbar(
        mean, place, xerr=spread, fmt='o', color=colour,
        label=name if place == 0 else None,
      )  # fmt: skip
  labels = [_title(row['label']) for row in reversed(shown)]
  ax.set_yticks(range(len(labels)), labels)
  low = min(100 * row['chosen'][0] for row in shown)
  ax.set_xlim(left=low - 12)  # points of λ = 1 far below are cut off
  ax.grid(axis='x', color='#e6e6e6', lw=0.8)
  ax.set_xlabel('test accuracy, %')
  ax.legend(frameon=False, fontsize=10, loc='upper left')
  canvas.heading(ax, 'One field of the recipe changed')


def _title(label: str) -> str:
  """Returns a label in words."""
  name, _, _ = label.partition(' of ')
  return PEERS.get(name, label.replace('=', ': '))
