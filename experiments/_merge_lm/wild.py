"""Merges of random subsets of a pool of unlike experts."""

from typing import Any

import numpy as np

from experiments._merge_lm import scoring, settings
from experiments._shared import merge_methods, protocols, side_by_side
from wsl import types


def alone(
  setting: settings.Setting, base: types.Params, experts: types.Params
) -> dict[str, Any]:
  """Measures base ``[S, ...]`` and pool ``[S, P, ...]`` on the test windows.

  Returns:
    Bits for each byte: ``base`` ``[S, D]``, ``pool`` ``[S, P, D]``.
  """
  windows = setting.corpus.test[:, : setting.config.wild.windows]
  of_base = [
    scoring.of_model(setting, side_by_side.pick(base, s), windows).tolist()
    for s in range(setting.config.seeds)
  ]
  of_pool = scoring.of_pool(setting, experts, windows)
  return {'base': of_base, 'pool': of_pool.tolist()}


def measure(
  setting: settings.Setting,
  method: merge_methods.Method,
  base: types.Params,
  stack: types.Deltas,
  pool: dict[str, Any],
) -> dict[str, Any]:
  """Merges every subset of every seed by one method.

  The coefficient of a size is that of least validation loss over its subsets
  and all seeds.

  Args:
    setting: config, texts, model and subsets.
    method: its first candidate is used.
    base: ``[S, ...]``.
    stack: task vectors of the pool, ``[S, P, ...]``.
    pool: from ``alone``.

  Returns:
    The statistics of ``protocols.in_the_wild`` by seed, each ``[S, sizes]``,
    for the ``tuned`` coefficient and for ``untuned``, a coefficient of 1;
    ``coefs`` that were chosen, ``[sizes]``.
  """
  members = setting.members
  tuned, untuned, coefs = [], [], []
  for size in np.unique(members.sum(1)):
    rows = members[members.sum(1) == size]
    places = np.stack([np.flatnonzero(row) for row in rows])
    found = scoring.of_subsets(setting, method, base, stack, places)
    validation, test = np.moveaxis(found, 3, 0)
    best = int(validation.mean((0, 1, 3)).argmin())
    coefs.append(method.coefs[best])
    tuned.append(test[:, :, best])
    untuned.append(test[:, :, method.coefs.index(settings.UNTUNED)])
  compare = lambda merged: _statistics(members, merged, pool)
  return {
    'sizes': sorted(set(members.sum(1).tolist())),
    'coefs': coefs,
    'tuned': compare(np.concatenate(tuned, 1)),
    'untuned': compare(np.concatenate(untuned, 1)),
  }


def _statistics(
  members: np.ndarray, merged: np.ndarray, pool: dict[str, Any]
) -> dict[str, Any]:
  """Compares merges ``[S, subsets, D]`` with base and members."""
  found = protocols.in_the_wild(
    members, merged, pool['pool'], pool['base'], lower_is_better=True
  )
  return {
    name: value.tolist()
    for name, value in found._asdict().items()
    if name != 'sizes'
  }
