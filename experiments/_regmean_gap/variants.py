"""RegMean by a recipe, and its accuracies."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._regmean_gap import settings
from experiments._run import console
from experiments._shared import (
  batches,
  side_by_side,
  suite_accuracy,
  suite_training,
)
from wsl import align, deltas, merge, stats, tree, types


def first(models: suite_training.Models, count: int) -> suite_training.Models:
  """Returns the models of the first tasks."""
  take = functools.partial(jax.tree.map, lambda x: x[:, :count])
  return suite_training.Models(
    models.base, take(models.stack), take(models.heads)
  )


def measure(
  setting: settings.Setting, merged: types.Delta, models: suite_training.Models
) -> dict[str, Any]:
  """Measures a merge of all seeds.

  Args:
    setting: suite and coefficients.
    merged: ``[S, ...]``.
    models: that were merged, of the first tasks.

  Returns:
    ``validation``: accuracies by coefficient, seed and task; ``test``: the same
    by seed and task with the coefficient 1; ``chosen``: with the coefficient
    that is best on validation, one for all seeds; ``coef``, that coefficient.
  """
  of = functools.partial(_accuracy, setting, merged, models)
  validation = of('validation', setting.coefs)
  coef = setting.coefs[int(validation.mean((1, 2)).argmax())]
  test = of('test', (1.0, coef))
  return {
    'coef': coef,
    'validation': validation.tolist(),
    'test': test[0].tolist(),
    'chosen': test[1].tolist(),
  }


def _accuracy(
  setting: settings.Setting,
  merged: Any,
  models: suite_training.Models,
  split: str,
  coefs: tuple[float, ...],
) -> np.ndarray:
  """Returns accuracies on the tasks of the models, ``[L, S, T]``."""
  suite, count = setting.suite, jax.tree.leaves(models.heads)[0].shape[1]
  part = getattr(suite.tasks, split)
  images = type(part)(*(x[:count] for x in part))
  return suite_accuracy.of_all(
    suite, models.base, merged, models.heads, images, coefs
  )


def family(
  setting: settings.Setting, stack: types.Deltas, models: suite_training.Models
) -> np.ndarray:
  """Returns test accuracies of one model for each task, ``[S, T]``."""
  own = suite_accuracy.Experts(stack)
  return _accuracy(setting, own, models, 'test', (1.0,))[0]


def merge_all(
  setting: settings.Setting, label: str, models: suite_training.Models
) -> types.Delta:
  """Merges the experts of each seed by a recipe, ``[S, ...]``."""
  recipe = setting.recipes[label]
  count = settings.tasks_of(setting, recipe)
  models = first(models, count)
  merged = []
  seeds = setting.suite.config.seeds
  with console.progress(label, seeds) as tick:
    for s in range(seeds):
      one = side_by_side.pick(models, s)
      merged.append(_merge(setting, recipe, one))
      tick('')
  return tree.stack(merged)


def peer(name: str, models: suite_training.Models) -> types.Delta:
  """Merges the experts of each seed without data, ``[S, ...]``."""
  options: dict[str, dict[str, Any]] = {'tsv': {'otherwise': 'mean'}}
  seeds = len(jax.tree.leaves(models.stack)[0])
  merged = [
    getattr(merge, name)(
      side_by_side.pick(models.stack, s), **options.get(name, {})
    )
    for s in range(seeds)
  ]
  return tree.stack(merged)


def _merge(
  setting: settings.Setting,
  recipe: settings.Recipe,
  models: suite_training.Models,
) -> types.Delta:
  """Merges the experts of one seed."""
  given = images(setting, recipe)
  options: dict[str, Any] = {
    'shrink': recipe.shrink,
    'matrices': setting.leaves[recipe.leaves],
    'otherwise': 'mean',
  }
  if recipe.inputs == 'merged':
    merged = merge.regmean_plus(
      models.stack,
      base=models.base,
      apply_fn=setting.suite.encode,
      batches=given,
      blocks=setting.blocks,
      **options,
    )
  else:
    grams = [
      stats.gram(setting.suite.encode, expert, x)
      for expert, x in zip(experts(models), given)
    ]
    stacked = tree.stack(grams)
    if recipe.correlations == 'channel':
      stacked = tree.map_named(_within_positions, models.stack, stacked)
    merged = merge.regmean(models.stack, grams=stacked, **options)
  if recipe.moments == 'reset':
    merged = _reset_moments(setting, merged, models, given)
  return merged


def images(
  setting: settings.Setting, recipe: settings.Recipe
) -> list[list[types.Array]]:
  """Returns the training images of each task that a recipe reads, batched."""
  count = settings.tasks_of(setting, recipe)
  x = setting.suite.tasks.train.x[:count, : recipe.examples]
  size = min(recipe.examples, setting.suite.config.statistics.batch_size)
  return [batches.of_images(jnp.asarray(one, jnp.float32), size) for one in x]


def experts(models: suite_training.Models) -> list[types.Params]:
  """Returns the encoders of one seed."""
  count = len(jax.tree.leaves(models.stack)[0])
  return [
    deltas.apply(models.base, side_by_side.pick(models.stack, t))
    for t in range(count)
  ]


def _within_positions(name: str, x: types.Array, gram: Any) -> Any:
  """Keeps the correlations of channels at one position of a patch."""
  del name
  if gram is None or len(gram.axes) < 2:
    return gram
  *positions, channels = (x.shape[1 + axis] for axis in gram.axes)
  block = jnp.ones((channels, channels), gram.matrix.dtype)
  eye = jnp.eye(int(np.prod(positions)), dtype=gram.matrix.dtype)
  mask = jnp.kron(eye, block)[None, None]
  return dataclasses.replace(gram, matrix=gram.matrix * mask)


def _reset_moments(
  setting: settings.Setting,
  merged: types.Delta,
  models: suite_training.Models,
  given: list[list[types.Array]],
) -> types.Delta:
  """Gives every unit the mean moments of the experts on their own tasks."""
  moments = functools.partial(stats.moments, setting.suite.encode)
  pool = [batch for task in given for batch in task]
  fixed = align.repair(
    deltas.apply(models.base, merged),
    measure=lambda params: moments(params, pool),
    endpoints=[moments(m, x) for m, x in zip(experts(models), given)],
    passes=setting.suite.config.moments.passes,
  )
  return jax.tree.map(jnp.subtract, fixed, models.base)
