"""Phases of a zoo: labels, claims and tables.

Arrays are ``[W, T, P]``: widths, rates and pairs of seeds. A metric of one
network is averaged over the two of a pair, so that pairs are the repetitions.
"""

from typing import Any

import ml_collections
import numpy as np

from experiments._phases import settings
from experiments._run import console, spreads, verdicts
from wsl import landscape


def metrics(
  config: ml_collections.ConfigDict,
  single: dict[str, Any],
  paired: dict[str, Any],
  averages: dict[str, Any],
) -> dict[str, np.ndarray]:
  """Returns all metrics, ``[W, T, P]`` each.

  Args:
    config: of the run.
    single: from ``zoo.measure``.
    paired: from ``curves.measure``.
    averages: from ``averages.measure``.
  """
  both = settings.pairs(config)
  found = {
    name: np.asarray(x)[..., both].mean(-1) for name, x in single.items()
  }
  found |= {name: np.asarray(x) for name, x in paired.items()}
  for name, x in averages.items():
    found[name] = np.asarray(x) - found['test']
  found['gain'] = found.pop('aligned')
  return found


def label(
  config: ml_collections.ConfigDict, found: dict[str, np.ndarray]
) -> np.ndarray:
  """Returns the codes of phases, of the shape of the metrics."""
  return np.asarray(
    landscape.phases(
      found['loss'],
      found['connectivity'],
      found['similarity'],
      **config.phases.to_dict(),
    )
  )


def label_cells(
  config: ml_collections.ConfigDict, found: dict[str, np.ndarray]
) -> np.ndarray:
  """Returns the phase of each cell from means over pairs, ``[W, T]``."""
  return label(config, {name: x.mean(-1) for name, x in found.items()})


def summarise(
  config: ml_collections.ConfigDict, found: dict[str, np.ndarray]
) -> dict[str, Any]:
  """Summarises a zoo.

  Args:
    config: of the run.
    found: from ``metrics``.

  Returns:
    ``cells``: a dict for each width and rate with its phase, from means over
    pairs, and metrics ``[mean, standard deviation]``; ``phases``: by name the
    number of cells and the mean of each metric; ``claims``: see ``_claims``.
  """
  means = {name: x.mean(-1) for name, x in found.items()}
  codes = label_cells(config, found)
  cells = [
    {
      'width': config.widths[i],
      'rate': config.rates[t],
      'phase': landscape.PHASES[codes[i, t]],
      **{name: spreads.spread(x[i, t]) for name, x in found.items()},
    }
    for i, t in np.ndindex(codes.shape)
  ]
  phases = {}
  for code, name in enumerate(landscape.PHASES):
    inside = codes == code
    if inside.any():
      of_phase = {key: float(x[inside].mean()) for key, x in means.items()}
      phases[name] = {'cells': int(inside.sum()), **of_phase}
  return {
    'cells': cells,
    'phases': phases,
    'claims': _claims(codes, label(config, found), found),
  }


def _claims(
  codes: np.ndarray, each: np.ndarray, found: dict[str, np.ndarray]
) -> dict[str, Any]:
  """Judges the published claims, pair by pair.

  Args:
    codes: the phase of each cell, ``[W, T]``.
    each: the phase of each pair, ``[W, T, P]``.
    found: from ``metrics``.

  Returns:
    By claim, as ``verdicts.judge`` does. A claim about a phase without a cell
    is absent.
  """
  phase = {name: codes == i for i, name in enumerate(landscape.PHASES)}
  low = phase['III'] | phase['IV-A'] | phase['IV-B']
  inside = lambda name, where: found[name][where].mean(0)
  gains: list[tuple[str, Any]] = [
    (f'phase {name} exists (cells)', (each == i).sum((0, 1)))
    for i, name in enumerate(landscape.PHASES)
  ]

  def compare(
    claim: str, name: str, first: np.ndarray, second: np.ndarray
  ) -> None:
    if first.any() and second.any():
      factor = 100 if name in ('test', 'gain') else 1
      by = inside(name, first) - inside(name, second)
      gains.append((claim, factor * by))

  for name in ('trace', 'top'):
    compare(
      f'Hessian larger at high loss: {name} of I and II minus III and IV',
      name, ~low, low,
    )  # fmt: skip
  for what, name in (('generalise', 'test'), ('average', 'gain')):
    for other in landscape.PHASES[:-1]:
      claim = f'networks {what} better in IV-B than in {other} (points)'
      compare(claim, name, phase['IV-B'], phase[other])
  return verdicts.judge(gains)


def show(
  title: str, config: ml_collections.ConfigDict, summary: dict[str, Any]
) -> None:
  """Prints a table of the phases, and the verdicts."""
  limits = config.phases
  rows = [
    (
      name,
      str(x['cells']),
      f'{x["loss"]:.3f}',
      f'{100 * x["test"]:.1f}',
      f'{x["trace"]:.1f}',
      f'{x["top"]:.1f}',
      f'{x["connectivity"]:+.3f}',
      f'{x["line"]:.3f}',
      f'{x["similarity"]:.2f}',
      f'{100 * x["gain"]:+.1f}',
      f'{100 * x["naive"]:+.1f}',
    )
    for name, x in summary['phases'].items()
  ]
  console.show_table(
    title,
    (
      *('phase', 'cells', 'loss', 'test', 'trace', 'top', 'mc', 'line'),
      *('CKA', 'aligned', 'naive'),
    ),
    [rows],
    [
      f'low loss: at most {limits.low_loss:g} nats; barrier: above '
      f'{limits.barrier:g} nats; high CKA: at least {limits.similar:g}. line: '
      'barrier of the straight line, nats; aligned, naive: test accuracy of '
      'the average of two seeds minus their mean, points.',
      *verdicts.lines(summary['claims']),
    ],
  )
