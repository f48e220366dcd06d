"""Claims, table and figure of nested networks."""

import pathlib
from typing import Any

import numpy as np

from experiments._nested import networks, settings
from experiments._run import canvas, console, spreads, verdicts

STYLES = {
  'summed': ('nested: all sizes in a step', '#1f77b4', '-'),
  'sampled': ('nested: one random size', '#17a2c0', '--'),
  'mixed': ('nested: one random mixture', '#7b6bd6', '--'),
  'sandwich': ('nested: ends and one random', '#2f9e6f', '--'),
  'separate': ('a network of each width', '#333333', '-'),
  'stored': ('ordinary, unsorted', '#d9a441', ':'),
  'weights': ('ordinary, by weights', '#e07b39', '--'),
  'gradients': ('ordinary, by gradients', '#d1495b', '--'),
  'activations': ('ordinary, by activations', '#a3305c', '-'),
}


def summarise(
  setting: settings.Setting, flops: list[int], results: dict[str, Any]
) -> dict[str, Any]:
  """Returns rows of the table, and the claims judged seed by seed."""
  count = len(setting.config.factors)
  rows = []
  for name in STYLES:
    if name in results:
      uniform = np.asarray(results[name])[:, :count]
      mixtures = np.asarray(results[name])[:, count:]
      rows.append({
        'network': name,
        'uniform': spreads.columns(uniform),
        'mixtures': (
          spreads.spread(mixtures.mean(1)) if mixtures.size else None
        ),
      })  # fmt: skip
  claims = verdicts.judge(_gains(setting, flops, results))
  return {
    'rows': rows,
    'claims': claims,
    'factors': list(setting.config.factors),
    'share': [f / flops[0] for f in flops[:count]],
    'difference': results['difference'],
  }


def _gains(
  setting: settings.Setting, flops: list[int], results: dict[str, Any]
) -> list[tuple[str, Any]]:
  """Returns claims, and by how many points of accuracy each holds, ``[S]``."""
  count = len(setting.config.factors)
  found = {k: np.asarray(v) for k, v in results.items()}
  smaller = {k: v[:, 1:count].mean(1) for k, v in found.items() if v.ndim}
  sorted_ = np.max([smaller[k] for k in networks.ORDERS[1:]], axis=0)
  one = _of_one_layer(setting)
  by_activations = found['activations'][:, one] - found['stored'][:, one]
  claims = [
    ('sorted slices above unsorted', sorted_ - smaller['stored']),
    ('by activations above unsorted, one layer', by_activations.mean(1)),
  ]
  for kind in setting.config.kinds:
    claims += [
      (f'{kind} above sorted slices', smaller[kind] - sorted_),
      (
        f'{kind} within a point of separate networks',
        1 - (found['separate'].mean(1) - found[kind][:, :count].mean(1)),
      ),
    ]
    if found[kind].shape[1] > count:
      over = _above_the_line(setting, flops, found[kind])
      gradual = _is_gradual(setting)
      claims += [
        (f'{kind}: mixtures above the line of sizes', over.mean(1)),
        (
          f'{kind}: narrowing mixtures above the others',
          over[:, gradual].mean(1) - over[:, ~gradual].mean(1),
        ),
      ]
  return claims


def _of_one_layer(setting: settings.Setting) -> np.ndarray:
  """Returns which slices cut a single layer, to its next smaller size."""
  q = setting.config.factors[1]
  alone = [1] * (len(setting.choices[0]) - 1) + [q]
  return np.asarray([sorted(c) == alone for c in setting.choices])


def _above_the_line(
  setting: settings.Setting, flops: list[int], values: np.ndarray
) -> np.ndarray:
  """Returns mixtures minus the interpolation of uniform sizes at equal cost."""
  count, x = len(setting.config.factors), np.asarray(flops, float)
  line = [
    np.interp(x[count:], x[:count][::-1], row[:count][::-1]) for row in values
  ]
  return values[:, count:] - np.asarray(line)


def _is_gradual(setting: settings.Setting) -> np.ndarray:
  """Returns which mixtures have widths that never grow with depth."""
  count = len(setting.config.factors)
  return np.asarray([[*c] == sorted(c) for c in setting.choices[count:]])


def draw(
  path: pathlib.Path,
  setting: settings.Setting,
  flops: list[int],
  results: dict[str, Any],
) -> None:
  """Draws accuracy against FLOPs of all slices."""
  count = len(setting.config.factors)
  share = 100 * np.asarray(flops, float) / flops[0]
  fig, panels = canvas.grid(13, 5.2, 1, 2, share=True)
  kinds = [k for k in STYLES if k in setting.config.kinds]
  groups = ([*kinds, 'separate'], ['separate', *networks.ORDERS])
  heads = (
    'Nested training (points: mixtures)',
    'Slices of an ordinary network (points: mixtures)',
  )
  for ax, names, head in zip(panels[0], groups, heads):
    for name in names:
      text, colour, ls = STYLES[name]
      values = np.asarray(results[name])
      mean = values.mean(0)
      spread = values.std(0, ddof=1) if len(values) > 1 else 0 * mean
      if values.shape[1] > count and name in (kinds[0], 'mixed', 'activations'):
        ax.plot(share[count:], mean[count:], '.', color=colour, alpha=0.45)
      canvas.curve(
        ax, share[:count], mean[:count], spread[:count],
        colour=colour, ls=ls, marker='o', label=text,
      )  # fmt: skip
    canvas.heading(ax, head)
    ax.set_xlabel('FLOPs of the slice, % of the whole')
    ax.legend(frameon=False, loc='lower right', fontsize=10)
  panels[0][0].set_ylabel('test accuracy, %')
  lowest = np.asarray(results['weights'])[:, :count].mean(0).min()
  panels[0][0].set_ylim(max(lowest - 8, 0), 101)
  canvas.save(fig, path)


def show(title: str, summary: dict[str, Any]) -> None:
  """Prints accuracies by size, and the claims."""
  heads = [
    f'1/{q} ({100 * share:.0f} %)'
    for q, share in zip(summary['factors'], summary['share'])
  ]
  rows = [
    [
      STYLES[row['network']][0],
      *map(spreads.text, row['uniform']),
      spreads.text(row['mixtures']) if row['mixtures'] else '',
    ]
    for row in summary['rows']
  ]
  console.show_table(
    f'{title}: test accuracy, %',
    ['network', *heads, 'mixtures'],
    [rows],
    [
      *verdicts.lines(summary['claims']),
      f'a cut slice differs from the masked one by {summary["difference"]:.1e}',
    ],
  )
