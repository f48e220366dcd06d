"""Figures of a stitchable family."""

import pathlib
from typing import Any

from matplotlib import axes
import numpy as np

from experiments._run import canvas, spreads
from experiments._stitch_family import settings
from wsl import stitch

_FRONTS = {
  'v1': ('SN-Net', '#1f6fb4', 'o'),
  'v2': ('SN-Netv2', '#c2559d', 's'),
}
_STUDENTS = {
  'distilled': ('students, distilled, same cost in all', '#e8871e', '^'),
  'alone': ('students, labels, same cost in all', '#8c6d31', 'v'),
  'distilled_each': ('students, distilled, same cost each', '#2c8a3d', 'D'),
}
_GREY = '#b0b0b0'


def pareto(
  path: pathlib.Path,
  setting: settings.Setting,
  results: dict[str, Any],
  summary: dict[str, Any],
) -> None:
  """Draws FLOPs against accuracy, and the cost of the trainings.

  Args:
    path: the file to write.
    setting: config, data and model.
    results: by part.
    summary: from ``summarise``.
  """
  fig, ((left, right),) = canvas.grid(13.5, 5.2, 1, 2)
  fits, first = results['least_squares'], len(setting.depths)
  flops = {k: np.asarray(v) / 1e6 for k, v in fits['flops'].items()}
  left.plot(
    flops['v1'][first:],
    _mean(fits['v1'], 'test')[first:],
    'x',
    color=_GREY,
    ms=5,
    label='stitches, least squares only',
  )
  for name, (label, colour, marker) in _FRONTS.items():
    seeds = results[name]['seeds']
    test, held_out = _mean(seeds, 'test'), _mean(seeds, 'held_out')
    left.plot(flops[name], test, marker, color=colour, ms=3.5, alpha=0.45)
    front = stitch.pareto(flops[name], held_out)
    left.plot(
      *(flops[name][front], test[front]),
      *(f'{marker}-',),
      color=colour,
      ms=6,
      lw=2,
      label=f'{label}, front on held-out images',
    )
  for name, (label, colour, marker) in _STUDENTS.items():
    _bars(
      left, flops['students'], results[name]['seeds'], colour, marker, label
    )
  before = [{'test': seed['test'][:first]} for seed in fits['v1']]
  _bars(left, flops['v1'][:first], before, canvas.INK, '*', 'anchors', 11)
  left.set_xscale('log')
  left.minorticks_off()
  ticks = sorted([*flops['students'], *flops['v1'][:first]])
  left.set_xticks(ticks, [f'{tick:.2g}' for tick in ticks])
  left.set_xlabel('MFLOPs per image')
  left.set_ylabel('test accuracy, %')
  left.set_title('networks', loc='left', color=canvas.INK)
  _costs(right, summary)
  left.legend(frameon=False, fontsize=9, labelcolor=canvas.INK)
  canvas.save(fig, path)


def _costs(ax: axes.Axes, summary: dict[str, Any]) -> None:
  """Draws mean accuracy over the levels, with the cost of the training."""
  rows = summary['rows'][::-1]
  for place, row in enumerate(rows):
    _, colour, marker = {**_FRONTS, **_STUDENTS}.get(
      row['method'], ('', canvas.INK, '*')
    )
    mean, deviation = (100 * x for x in row['mean'])
    ax.errorbar(
      mean, place, xerr=deviation, fmt=marker, color=colour, ms=7, lw=1.5
    )
  ax.set_yticks(
    range(len(rows)),
    [f'{row["title"]}  ({row["cost"]:.2f})' for row in rows],
  )
  ax.grid(axis='x', color='#e6e6e6', lw=0.8)
  ax.set_xlabel('mean over budgets of FLOPs, %')
  ax.set_title(
    '(cost of training, relative to the largest anchor)',
    loc='left',
    color=canvas.INK,
  )


def similarity(
  path: pathlib.Path, setting: settings.Setting, results: dict[str, Any]
) -> None:
  """Draws similarity at a stitch against accuracy without training.

  Args:
    path: the file to write.
    setting: config, data and model.
    results: by part.
  """
  fits, first = results['least_squares'], len(setting.depths)
  fig, panels = canvas.grid(11.5, 4.6, 1, 2, share=True)
  labels = {'cka': 'CKA, unbiased', 'residual': 'R² of least squares'}
  costs = np.asarray(fits['flops']['candidates'])[first:] / 1e6
  for ax, (name, label) in zip(panels[0], labels.items(), strict=True):
    for scores, seed in zip(
      fits['scores'][name], fits['candidates'], strict=True
    ):
      points = ax.scatter(
        scores, 100 * np.asarray(seed['test'])[first:], c=costs, s=16
      )
    ax.set_xlabel(label)
  panels[0][0].set_ylabel('test accuracy without training, %')
  fig.colorbar(points, ax=panels[0][1], label='MFLOPs per image')
  canvas.save(fig, path)


def _bars(
  ax: axes.Axes,
  costs: np.ndarray,
  seeds: list[dict[str, Any]],
  colour: str,
  marker: str,
  label: str,
  size: float = 7,
) -> None:
  """Draws means with standard deviations over seeds."""
  test = [seed['test'] for seed in seeds]
  pairs = 100 * np.asarray(spreads.columns(test))
  ax.errorbar(
    *(costs, pairs[:, 0], pairs[:, 1]),
    fmt=marker,
    color=colour,
    ms=size,
    lw=1.5,
    label=label,
  )


def _mean(seeds: list[dict[str, Any]], split: str) -> np.ndarray:
  """Returns the mean accuracies over seeds, in per cent."""
  return 100 * np.mean([seed[split] for seed in seeds], 0)
