"""Figures of learned coefficients, and of accuracy with few labels."""

from collections.abc import Sequence
import pathlib
import re
from typing import Any

from matplotlib import axes
import numpy as np

from experiments._run import canvas
from experiments._scale_task_vectors import report
from experiments._shared import suites

# Blues are coefficients, oranges low-rank factors; pairs of equal shade have
# about the same number of parameters.
_STYLES = {
  'isotropic': ('#9ecae1', 's', '-'),
  'anisotropic': ('#4292c6', 'o', '-'),
  'partition': ('#08306b', 'o', '-'),
  'lora': ('#fdae6b', '^', '--'),
  'lora_partition': ('#b5460f', '^', '--'),
  'probe': ('#2c8a3d', 'D', ':'),
  'tip': ('#bcbddc', 'X', ':'),
  'lp': ('#f1a3c7', 'P', ':'),
  'anisotropic_tip': ('#6a51a3', 'X', '-'),
  'anisotropic_lp': ('#c51b7d', 'P', '-'),
  'full': ('#7f7f7f', 'v', ':'),
}
_MAPS = {
  ('addition', 'anisotropic'): 'aTLAS, labels',
  ('test_time', 'adamerging_leaf'): 'AdaMerging layer-wise, no labels',
}


def draw(
  folder: pathlib.Path,
  suite: suites.Suite,
  blocks: Sequence[str],
  bounds: dict[str, Any],
  results: dict[str, Any],
) -> None:
  """Draws the figures of the settings that were run.

  Args:
    folder: of the files.
    suite: tasks and model.
    blocks: names of leaves in order of use.
    bounds: accuracies ``[S, T]`` of base and experts.
    results: measurements by setting and method.
  """
  maps = {
    title: results[setting][name]['coefs']
    for (setting, name), title in _MAPS.items()
    if name in results.get(setting, {})
  }
  if maps:
    coefficients(folder / 'coefficients.png', suite.tasks.names, blocks, maps)
  if 'few_shot' in results:
    few_shot(folder / 'few_shot.png', suite, bounds, results['few_shot'])
  if 'partition' in results:
    partition(folder / 'partition.png', bounds, results['partition'])


def coefficients(
  path: pathlib.Path,
  tasks: Sequence[str],
  blocks: Sequence[str],
  maps: dict[str, dict[str, Any]],
) -> None:
  """Draws learned coefficients, task by block, the mean over seeds.

  Args:
    path: the file to write.
    tasks: T names.
    blocks: in the order of the network.
    maps: by title, coefficients ``[S, T]`` by block.
  """
  shown = {
    title: np.stack([np.mean(coefs[b], 0) for b in blocks if b in coefs], 1)
    for title, coefs in maps.items()
  }
  labels = [b for b in blocks if b in next(iter(maps.values()))]
  width = 3.0 + max(0.42 * len(labels), 5.0)
  height = 1.9 + len(maps) * (0.6 + 0.34 * len(tasks))
  fig, panels = canvas.grid(width, height, len(maps), 1)
  for i, ((ax,), (title, values)) in enumerate(zip(panels, shown.items())):
    reach = max(np.abs(values).max(), 1e-6)
    image = ax.imshow(
      values, cmap='RdBu_r', vmin=-reach, vmax=reach, aspect='auto'
    )
    last = i == len(maps) - 1
    ax.set_xticks(
      range(len(labels)), [_short(b) for b in labels] if last else []
    )
    ax.tick_params(axis='x', labelrotation=90, labelsize=9, length=0)
    ax.tick_params(axis='y', labelsize=10, length=0)
    ax.set_yticks(range(len(tasks)), tasks)
    canvas.heading(ax, title)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    bar = fig.colorbar(image, ax=ax, pad=0.01, fraction=0.04)
    bar.set_label('coefficient', color=canvas.INK)
    bar.outline.set_visible(False)
    if values.size <= 160:
      _write(ax, values, reach)
  canvas.save(fig, path)


def _write(ax: axes.Axes, values: np.ndarray, reach: float) -> None:
  """Writes values into cells."""
  for (row, column), value in np.ndenumerate(values):
    ax.text(
      column,
      row,
      re.sub(r'^(-?)0\.', r'\1.', f'{value:.2f}'),
      ha='center',
      va='center',
      fontsize=7,
      color='white' if abs(value) > 0.6 * reach else canvas.INK,
    )


def _short(block: str) -> str:
  """Returns ``block_0 kernel`` for ``block_0/dense/kernel``."""
  parts = [p for p in block.split('/') if p not in ('dense', 'conv')]
  return ' '.join(parts)


def few_shot(
  path: pathlib.Path,
  suite: suites.Suite,
  bounds: dict[str, Any],
  found: dict[str, Any],
) -> None:
  """Draws accuracy against shots: the mean over targets, ± over seeds."""
  fig, ax = canvas.single(9.5, 5.0)
  final = lambda name: np.mean(found[name]['test'][-1])
  for name in sorted(found, key=final, reverse=True):
    one = found[name]
    colour, marker, dash = _STYLES[name]
    by_seed = 100 * np.asarray(one['test']).mean(2)
    mean, spread = by_seed.mean(1), _deviation(by_seed)
    title = report.title(name, suite.config)
    canvas.curve(
      *(ax, one['shots'], mean, spread),
      colour=colour,
      ls=dash,
      marker=marker,
      alpha=0.15,
      label=f'{title}: {one["trained"]:,}',
    )
  _level(ax, 'base', bounds)
  shots = next(iter(found.values()))['shots']
  canvas.log_ticks(ax, shots, base=2)
  ax.set_xlabel('labelled images of each class')
  ax.set_ylabel('test accuracy on the target, %')
  canvas.legend(ax, 'method: parameters')
  canvas.save(fig, path)


def partition(
  path: pathlib.Path, bounds: dict[str, Any], found: dict[str, Any]
) -> None:
  """Draws accuracy against the number of parameters."""
  shots = next(iter(found.values()))['shots']
  fig, panels = canvas.grid(
    4.6 * len(shots) + 2.6, 4.6, 1, len(shots), share=True
  )
  cells = [name for name in found if name.startswith('x')]
  factors = [name for name in found if name.startswith('lora_')]
  kinds = [
    kind
    for kind in (
      ('aTLAS x K', 'partition', cells),
      ('LoRA', 'lora_partition', factors),
      ('linear probe', 'probe', [name for name in found if name == 'probe']),
      ('fine-tuning', 'full', [name for name in found if name == 'full']),
    )
    if kind[2]
  ]
  for i, (ax, k) in enumerate(zip(panels[0], shots)):
    for title, style, names in kinds:
      colour, marker, dash = _STYLES[style]
      at = np.asarray([found[name]['trained'] for name in names])
      by_seed = 100 * np.asarray([found[n]['test'][i] for n in names]).mean(2)
      ax.errorbar(
        at,
        by_seed.mean(1),
        yerr=_deviation(by_seed),
        color=colour,
        marker=marker,
        ls=dash if len(names) > 1 else '',
        lw=2,
        elinewidth=1,
        markersize=7,
        label=title,
      )
    for name in cells:
      ax.annotate(
        name.removeprefix('x'),
        (found[name]['trained'], 100 * np.mean(found[name]['test'][i])),
        xytext=(-5, 6),
        textcoords='offset points',
        ha='right',
        color=_STYLES['partition'][0],
      )
    ax.set_xscale('log')
    ax.set_xlabel('parameters trained')
    ax.set_title(f'{k} images of each class', loc='left', color=canvas.INK)
    _level(ax, 'base', bounds)
  panels[0][0].set_ylabel('test accuracy on the target, %')
  canvas.legend(panels[0][-1], 'K next to the points')
  canvas.save(fig, path)


def _deviation(by_seed: np.ndarray) -> np.ndarray:
  """Returns the standard deviation over the last axis; 0 of one seed."""
  if by_seed.shape[-1] < 2:
    return np.zeros(by_seed.shape[:-1])
  return by_seed.std(-1, ddof=1)


def _level(ax: axes.Axes, name: str, bounds: dict[str, Any]) -> None:
  """Draws a dashed line at the test accuracy of a bound."""
  value = 100 * np.mean(bounds[name]['test'])
  ax.axhline(value, color=canvas.INK, lw=1, ls=(0, (4, 3)), zorder=1)
  ax.annotate(
    f'{name} {value:.1f}',
    (1, value),
    xycoords=('axes fraction', 'data'),
    xytext=(-3, -4),
    textcoords='offset points',
    ha='right',
    va='top',
    color=canvas.INK,
  )
