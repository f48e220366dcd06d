"""Fronts of a group of tasks: by every search, and by a grid."""

import functools
from typing import Any

import jax
import numpy as np

from experiments._pareto import objectives, searches, settings
from experiments._run import console, records
from wsl import search, types


def exhaustive(
  setting: settings.Setting, group: str, models: Any
) -> dict[str, Any]:
  """Evaluates a grid of coefficients.

  Args:
    setting: suite, groups and budgets.
    group: the name of the group.
    models: base ``[S, ...]``, task vectors and heads ``[S, T, ...]``.

  Returns:
    By seed: ``reference``, the errors of the base, ``[S][T]``; ``front`` and
    ``inner``, validation errors of the front and of other points; ``volume``
    of the front; ``points``, the size of the grid; ``experts``, the mean test
    error of the experts, each on its own task.
  """
  suite, tasks = setting.suite, setting.groups[group]
  count = len(tasks)
  side = int(setting.suite.config.exhaustive ** (1 / count) + 1e-9)
  axes = np.meshgrid(*[np.linspace(0, 1, side)] * count, indexing='ij')
  grid = np.stack(axes, -1).reshape(-1, count)  # its first point is the base
  found: dict[str, list[Any]] = {
    name: [] for name in ('reference', 'front', 'inner', 'volume', 'experts')
  }
  with console.progress(f'{group} grid', suite.config.seeds) as advance:
    for seed in range(suite.config.seeds):
      own = objectives.pick(models, suite, seed, tasks)
      measure = functools.partial(
        objectives.errors, suite, own, objectives.weighted_sum
      )
      errors = measure(grid)
      kept = search.non_dominated(errors)
      reference = errors[0]
      found['reference'].append(reference.tolist())
      found['front'].append(np.unique(errors[kept], axis=0).tolist())
      found['inner'].append(errors[~kept][:: 1 + len(grid) // 400].tolist())
      found['volume'].append(_volume(errors, reference))
      experts = measure(np.eye(count), 'test')
      found['experts'].append(float(np.diagonal(experts).mean()))
      advance(f'{len(found["front"][-1])} points')
  return {**found, 'points': len(grid)}


def measure(
  setting: settings.Setting,
  out: records.Run,
  group: str,
  method: str,
  models: Any,
  grid: dict[str, Any],
) -> dict[str, Any]:
  """Searches the front of a group in every seed.

  Args:
    setting: suite, groups and budgets.
    out: the folder, for journals of the evaluations.
    group: the name of the group.
    method: one of ``searches.METHODS``.
    models: base ``[S, ...]``, task vectors and heads ``[S, T, ...]``.
    grid: from ``exhaustive``.

  Returns:
    By seed: ``share``, the hypervolume of what was evaluated, relative to the
    grid's, at each budget, ``[S][budgets]``, NaN where the budget does not
    suffice; ``front``, its validation errors at the last budget; ``test``, the
    mean test error of the point of least mean validation error. For ``map``
    also ``predicted``, the relative volume of its whole front.
  """
  suite, tasks = setting.suite, setting.groups[group]
  merge_fn = (
    objectives.dare_ties if 'dare' in method else objectives.weighted_sum
  )
  size = len(tasks) * (2 if 'dare' in method else 1)
  found: dict[str, list[Any]] = {'share': [], 'front': [], 'test': []}
  if method == 'map':
    found['predicted'] = []
  with console.progress(f'{group} {method}', suite.config.seeds) as advance:
    for seed in range(suite.config.seeds):
      own = objectives.pick(models, suite, seed, tasks)
      errors = functools.partial(objectives.errors, suite, own, merge_fn)
      journal = functools.partial(
        _journal, out, f'{group}.{method}.{seed}', errors
      )
      key = _key(suite.config.seed, seed)
      volume, reference = grid['volume'][seed], grid['reference'][seed]
      results = searches.run(
        method, journal, size, setting.budgets, reference, key
      )
      shares = [
        _volume(errors, reference) / volume if len(errors) else float('nan')
        for _, errors in results
      ]
      points, values = results[-1]
      chosen = points[[np.argmin(values.mean(1))]]
      found['share'].append(shares)
      kept = search.non_dominated(values)
      found['front'].append(np.unique(values[kept], axis=0).tolist())
      found['test'].append(float(errors(chosen, 'test').mean()))
      if method == 'map':
        budget = setting.budgets[-1]
        _, true = searches.predicted(errors, size, budget, key)
        found['predicted'].append(_volume(true, reference) / volume)
      advance(f'{100 * shares[-1]:.1f} %')
  return found


def nested(
  setting: settings.Setting, out: records.Run, group: str, models: Any
) -> dict[str, Any]:
  """Merges a group in pairs; returns the test error of each seed, ``test``."""
  suite, tasks = setting.suite, setting.groups[group]
  found: dict[str, list[Any]] = {'test': [], 'evaluations': []}
  with console.progress(f'{group} nested', suite.config.seeds) as advance:
    for seed in range(suite.config.seeds):
      own = objectives.pick(models, suite, seed, tasks)
      errors = functools.partial(
        objectives.errors, suite, own, objectives.weighted_sum
      )
      evaluate = _journal(out, f'{group}.nested.{seed}', errors, 'all')
      key = _key(suite.config.seed, seed)
      result = searches.nested(evaluate, len(tasks), setting.budgets[-1], key)
      found['test'].append(float(errors(result.point[None], 'test').mean()))
      found['evaluations'].append(result.evaluations)
      advance(f'{100 * found["test"][-1]:.1f} %')
  return found


def _journal(
  out: records.Run, name: str, errors: searches.Evaluate, part: str
) -> searches.Evaluate:
  """Returns a function that stores its evaluations in the folder of the run."""
  folder = out.path / 'evaluations'
  folder.mkdir(exist_ok=True)
  file = f'{name}.{part}.jsonl'.replace(' + ', '_')
  return search.journal(errors, folder / file)


def _key(seed: int, run: int) -> types.PRNGKey:
  return jax.random.fold_in(jax.random.key(seed), run)


def _volume(errors: np.ndarray, reference: Any) -> float:
  """Returns the hypervolume of errors below those of the base."""
  return search.hypervolume(errors, reference=reference)
