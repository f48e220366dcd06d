"""Searches at an equal number of forward passes, with the curve of each."""

from collections.abc import Callable
import operator
from typing import Any

import jax
from jax import flatten_util
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._evolve import settings
from experiments._run import console
from wsl import search, types

Curves = dict[str, list[list[float]]]


def of(config: ml_collections.ConfigDict, start: str) -> list[str]:
  """Returns the methods that have a place at a start."""
  # The experts' runs have no mutations: a child of one parent is its parent.
  without = {'scratch': {'line'}, 'experts': {'cmaes', 'no_crossover'}}[start]
  return [name for name in config.methods if name not in without]


def measure(
  setting: settings.Setting, start: str, method: str, parents: types.Params
) -> Curves:
  """Runs a method from the parents of each run.

  Args:
    setting: config and data.
    start: 'scratch' or 'experts'.
    method: one of ``settings.METHODS``.
    parents: of each run, ``[runs, 2, ...]``.

  Returns:
    ``train`` and ``test``: the accuracy of the network that is best on the
    training images so far, ``[runs][points]``; ``evaluations``,
    ``[1][points]``.
  """
  if method == 'cmaes':
    return _cmaes(setting, parents)
  if method == 'line':
    return _line(setting, parents)
  return _archive(setting, start, method, parents)


def _archive(
  setting: settings.Setting, start: str, method: str, parents: types.Params
) -> Curves:
  """Evolves the archives of all runs side by side."""
  config, score = setting.config, _scores(setting, 'train')
  begin = lambda models: search.archive(
    models, jax.vmap(score)(models), size=config.archive
  )
  options: dict[str, Any] = dict(settings.ARCHIVES[method])
  steps = config.evaluations // config.points
  if start == 'scratch':
    options['mutation'] = config.deviation

  @jax.jit
  @jax.vmap
  def chunk(now: search.Archive, key: types.PRNGKey) -> Any:
    now, _ = search.m2n2(score, now, steps=steps, key=key, **options)
    means = now.scores.mean(1)
    best = jax.tree.map(lambda x: x[means.argmax()], now.models)
    return now, means.max(), _scores(setting, 'test')(best).mean()

  now = jax.jit(jax.vmap(begin))(parents)
  keys = jax.random.split(
    jax.random.key(config.seed + 1), (config.points, config.runs)
  )
  train, test = [], []
  with console.progress(f'{start} {method}', config.points) as advance:
    for key in keys:
      now, on_train, on_test = chunk(now, key)
      train.append(np.asarray(on_train))
      test.append(np.asarray(on_test))
      advance(f'{100 * train[-1].mean():.1f} %')
  return _curves(config, np.stack(train, 1), np.stack(test, 1))


def _cmaes(setting: settings.Setting, parents: types.Params) -> Curves:
  """Runs CMA-ES from the first parent of each run."""
  config = setting.config
  first = jax.tree.map(lambda x: x[:, 0], parents)
  _, build = flatten_util.ravel_pytree(jax.tree.map(lambda x: x[0], first))
  mean = lambda score: jax.jit(jax.vmap(lambda x: score(build(x)).mean()))
  measures = [mean(_scores(setting, split)) for split in ('train', 'test')]
  found = []
  with console.progress('scratch cmaes', config.runs) as advance:
    for run in range(config.runs):
      one = jax.tree.map(operator.itemgetter(run), first)
      start, _ = flatten_util.ravel_pytree(one)
      key = jax.random.fold_in(jax.random.key(config.seed + 2), run)
      found.append(_evolve(config, np.asarray(start), key, *measures))
      advance(f'{100 * found[-1][0][-1]:.1f} %')
  return _curves(config, *(np.stack(x) for x in zip(*found, strict=True)))


def _evolve(
  config: ml_collections.ConfigDict,
  start: np.ndarray,
  key: types.PRNGKey,
  on_train: Callable[[types.Array], types.Array],
  on_test: Callable[[types.Array], types.Array],
) -> tuple[np.ndarray, np.ndarray]:
  """Runs CMA-ES once; returns both accuracies of the best, ``[points]``."""
  as_params = lambda points: jnp.asarray(points, start.dtype)
  result = search.cmaes(
    lambda points: 1 - np.asarray(on_train(as_params(points))),
    start,
    sigma=config.deviation,
    evaluations=config.evaluations,
    population=min(config.archive, config.evaluations),
    diagonal=True,
    key=key,
  )
  at = np.linspace(0, len(result.losses), config.points + 1)[1:].astype(int)
  best = [int(np.argmin(result.losses[:n])) for n in at]
  return 1 - result.losses[best], np.asarray(
    on_test(as_params(result.points[best]))
  )


def _line(setting: settings.Setting, parents: types.Params) -> Curves:
  """Takes the point of the line between parents that is best in training."""
  config = setting.config
  weights = jnp.linspace(0, 1, min(config.evaluations, 1000))

  def point(pair: types.Params, weight: types.Array) -> types.Params:
    a, b = (jax.tree.map(lambda x, i=i: x[i], pair) for i in range(2))
    return search.crossover(a, b, split=2**31 - 1, weight=weight)

  @jax.jit
  @jax.vmap
  def best(pair: types.Params) -> tuple[types.Array, types.Array]:
    on_train = jax.lax.map(
      lambda w: _scores(setting, 'train')(point(pair, w)).mean(), weights
    )
    chosen = point(pair, weights[on_train.argmax()])
    return on_train.max(), _scores(setting, 'test')(chosen).mean()

  repeat = lambda x: np.repeat(np.asarray(x)[:, None], config.points, 1)
  return _curves(config, *map(repeat, best(parents)))


def _scores(
  setting: settings.Setting, split: str
) -> Callable[[types.Params], types.Array]:
  """Returns the function from a network to its score on each image."""
  images = getattr(setting, split)
  return lambda params: settings.scores(setting, params, images)


def _curves(
  config: ml_collections.ConfigDict, train: np.ndarray, test: np.ndarray
) -> Curves:
  step = config.evaluations // config.points
  return {
    'evaluations': [list(range(step, config.evaluations + 1, step))],
    'train': train.tolist(),
    'test': test.tolist(),
  }
