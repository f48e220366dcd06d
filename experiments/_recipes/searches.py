"""Searches for the numbers of a recipe, at equal numbers of evaluations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._recipes import settings
from experiments._run import console, records
from experiments._shared import (
  merge_methods,
  side_by_side,
  suite_accuracy,
  suite_training,
  suites,
)
from wsl import data, search, types
from wsl import mesh as mesh_lib

# Maps points of the unit cube [B, n] to losses [B].
Loss = Callable[[np.ndarray], np.ndarray]


def measure(
  out: records.Run,
  suite: suites.Suite,
  recipe: settings.Recipe,
  method: str,
  models: suite_training.Models,
  accuracy: Callable[..., types.Array],
) -> dict[str, Any]:
  """Searches the numbers of a recipe for each seed.

  Args:
    out: the run, which keeps a journal of each search.
    suite: tasks and model.
    recipe: with its box.
    method: one of ``settings.SEARCHES``.
    models: of all seeds.
    accuracy: of the recipe, from ``accuracy_of``; all searches of the recipe
      share its compiled programs.

  Returns:
    ``evaluations``, ``[points]``; ``validation`` and ``test``: mean accuracies
    of the point that is best on validation so far, ``[S][points]``; ``best``:
    that point at the end, ``[S][n]``; for two numbers, which can be drawn,
    ``asked`` and ``found``: all points ``[S][E][n]`` and their validation
    accuracies ``[S][E]``.
  """
  config = suite.config
  mesh = out.mesh or mesh_lib.make('candidates:1')
  keys = side_by_side.keys(config.merge_seed, 3, config.seeds)
  bind = lambda seed, split: jax.tree_util.Partial(
    accuracy, side_by_side.pick(models, seed), keys[seed], split
  )
  splits = [
    jax.tree.map(jnp.asarray, x)
    for x in (suite.tasks.validation, suite.tasks.test)
  ]
  found = []
  with console.progress(f'{recipe.name} {method}', config.seeds) as tick:
    for seed in range(config.seeds):
      on_validation, on_test = (bind(seed, split) for split in splits)
      loss = _loss(recipe, on_validation, mesh)
      journal = out.path / 'parts' / f'{recipe.name}.{method}.{seed}.jsonl'
      key = jax.random.fold_in(jax.random.key(config.seed), seed)
      result = _search(
        config, method, len(recipe.lower), search.journal(loss, journal), key
      )
      found.append(_curve(config.points, recipe, result, on_test, mesh))
      tick(f'{100 * found[-1]["validation"][-1]:.1f} %')
  rows = {name: [row[name] for row in found] for name in found[0]}
  return {**rows, 'evaluations': found[0]['evaluations']}


def accuracy_of(
  recipe: settings.Recipe, suite: suites.Suite
) -> Callable[..., types.Array]:
  """Returns the mean accuracy over tasks as a function of one point."""

  def accuracy(
    models: suite_training.Models,
    key: types.PRNGKey,
    split: data.Split,
    point: types.Array,
  ) -> types.Array:
    arguments, coef = recipe.fill(point)
    merged = merge_methods.apply(
      recipe.method, arguments, models.base, models.stack, {'key': key}
    )
    return suite_accuracy.of_seed(
      suite.classify,
      suite.config.evaluation.batch_size,
      (models.base, merged, models.heads),
      split,
      jnp.asarray(coef),
    ).mean()

  return accuracy


def _loss(
  recipe: settings.Recipe, accuracy: Any, mesh: jax.sharding.Mesh
) -> Loss:
  """Returns the error of points of the unit cube, one compiled call for all."""

  def loss(points: np.ndarray) -> np.ndarray:
    found = mesh_lib.map_candidates(
      accuracy, _in_box(recipe, points), mesh=mesh
    )
    return 1 - np.asarray(found, np.float64)

  return loss


def _in_box(recipe: settings.Recipe, points: np.ndarray) -> np.ndarray:
  """Maps points of the unit cube to the box of the recipe."""
  low, high = recipe.lower, recipe.upper
  return np.asarray(low + (high - low) * points, np.float32)


def _search(
  config: Any, method: str, size: int, loss: Loss, key: types.PRNGKey
) -> search.Search:
  """Runs one search in the unit cube."""
  if method == 'grid':
    return _grid(size, loss, config.evaluations, config.batch, key)
  if method == 'random':
    return search.random_search(
      loss, size, evaluations=config.evaluations, batch=config.batch, key=key
    )
  return search.cmaes(
    loss,
    np.full(size, 0.5),
    sigma=0.25,
    lower=0.0,
    upper=1.0,
    evaluations=config.evaluations,
    population=config.batch,
    key=key,
  )


def _grid(
  size: int, loss: Loss, evaluations: int, batch: int, key: types.PRNGKey
) -> search.Search:
  """Evaluates the largest grid within the evaluations, in random order."""
  side = 1
  while (side + 1) ** size <= evaluations:
    side += 1
  axes = np.meshgrid(*[np.linspace(0, 1, side)] * size, indexing='ij')
  points = np.stack([axis.ravel() for axis in axes], 1)
  points = points[np.asarray(jax.random.permutation(key, len(points)))]
  losses = np.concatenate(
    [loss(points[i : i + batch]) for i in range(0, len(points), batch)]
  )
  best = int(losses.argmin())
  return search.Search(points[best], float(losses[best]), points, losses)


def _curve(
  points: int,
  recipe: settings.Recipe,
  result: search.Search,
  on_test: Any,
  mesh: jax.sharding.Mesh,
) -> dict[str, Any]:
  """Measures the best point so far, after equal shares of the evaluations."""
  at = np.linspace(0, len(result.losses), points + 1)[1:].astype(int)
  best = [int(np.argmin(result.losses[:n])) for n in at]
  chosen = _in_box(recipe, result.points[best])
  test = mesh_lib.map_candidates(on_test, chosen, mesh=mesh)
  curve = {
    'evaluations': at.tolist(),
    'validation': (1 - result.losses[best]).tolist(),
    'test': np.asarray(test, np.float64).tolist(),
    'best': chosen[-1].tolist(),
  }
  if len(recipe.lower) == 2:
    curve['asked'] = _in_box(recipe, result.points).tolist()
    curve['found'] = (1 - result.losses).tolist()
  return curve
