"""Merges of subsets of a pool: the choice on validation images, the test."""

from collections.abc import Callable
import itertools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._protocols import pools, settings
from experiments._run import console
from experiments._shared import merge_methods, side_by_side, suites
from wsl import mesh as mesh_lib
from wsl import types


def measure(
  setting: settings.Setting,
  protocol: str,
  suite: suites.Suite,
  pool: pools.Pool,
  method: merge_methods.Method,
) -> dict[str, Any]:
  """Merges every subset of a protocol by one method.

  Arguments and coefficient maximise the validation accuracy: one choice for all
  subsets of a size and all seeds.

  Args:
    setting: with the subsets.
    protocol: one of ``settings.PROTOCOLS``.
    suite: tasks and model.
    pool: the experts.
    method: with its candidates.

  Returns:
    ``test``: accuracies ``[S][D][K]``; ``choices``: by size, the arguments and
    the coefficient; ``merge_seconds`` and ``validation_seconds`` of the search
    of one seed and subset, by size and candidate, without compilation in
    MergeBench.
  """
  members = setting.members[protocol]
  sizes = members.sum(1)
  seeds, tasks = suite.config.seeds, len(suite.tasks.names)
  test = np.zeros((seeds, len(members), tasks))
  found: dict[str, Any] = {
    'choices': [], 'merge_seconds': [], 'validation_seconds': [],
  }  # fmt: skip
  each = np.unique(sizes)
  with console.progress(f'{protocol} {method.name}', len(each)) as tick:
    for size in each:
      at = np.flatnonzero(sizes == size)
      rows = np.nonzero(members[at])[1].reshape(len(at), size)
      scored = _scored(setting, protocol, rows, tasks)
      repeats = 2 if protocol == settings.BENCH else 1
      result = _of_size(method, suite, pool, rows, scored, repeats)
      test[:, at] = result.pop('test')
      for name, value in result.items():
        found[name].append(value)
      tick(f'{100 * test[:, at].mean():.1f} %')
  return {**found, 'test': test.tolist()}


def _scored(
  setting: settings.Setting, protocol: str, rows: np.ndarray, tasks: int
) -> np.ndarray:
  """Returns weights of tasks in the choice, ``[D, K]``: those of the experts.

  Unlike experts are judged by all tasks.
  """
  weights = np.zeros((len(rows), tasks))
  if protocol == settings.WILD:
    weights += 1
  else:
    np.put_along_axis(weights, rows, 1, axis=1)
  return weights / weights.sum(1, keepdims=True)


def _of_size(
  method: merge_methods.Method,
  suite: suites.Suite,
  pool: pools.Pool,
  rows: np.ndarray,
  scored: np.ndarray,
  repeats: int,
) -> dict[str, Any]:
  """Merges subsets ``[D, n]`` with all candidates, and tests the best."""
  validation, merges, seconds = [], [], []
  for arguments in method.candidates:
    merge = _merge(method, arguments)
    one = lambda merge=merge: _merged(suite, pool, rows, merge)
    merged, merge_seconds = _timed(one, repeats)
    judge = lambda merged=merged: pools.accuracy(
      suite, pool, merged, suite.tasks.validation, method.coefs
    )
    found, validation_seconds = _timed(judge, repeats)
    merges.append(merged)
    validation.append((found * scored).sum(-1).mean((1, 2)))
    seconds.append((merge_seconds, validation_seconds))
  best = np.unravel_index(
    np.argmax(validation), (len(merges), len(method.coefs))
  )
  coef = method.coefs[best[1]]
  test = pools.accuracy(suite, pool, merges[best[0]], suite.tasks.test, (coef,))
  count = suite.config.seeds * len(rows)
  merge_seconds, validation_seconds = np.asarray(seconds).T / count
  return {
    'test': test[0],
    'choices': {'arguments': method.candidates[best[0]], 'coef': coef},
    'merge_seconds': merge_seconds.tolist(),
    'validation_seconds': validation_seconds.tolist(),
  }


def _merge(
  method: merge_methods.Method, arguments: dict[str, Any]
) -> Callable[..., types.Delta]:
  """Returns the merge of one subset of one seed, for ``map_candidates``."""

  def merge(
    pool: pools.Pool, keys: types.PRNGKey, candidate: dict[str, types.Array]
  ) -> types.Delta:
    one = side_by_side.pick(pool, candidate['seed'])
    stack, supplied = jax.tree.map(
      lambda x: x[candidate['rows']], (one.stack, one.supplied)
    )
    supplied['key'] = keys[candidate['seed']]
    return merge_methods.apply(method, arguments, one.base, stack, supplied)

  return merge


def _merged(
  suite: suites.Suite,
  pool: pools.Pool,
  rows: np.ndarray,
  merge: Callable[..., types.Delta],
) -> types.Deltas:
  """Merges all subsets of all seeds in one compiled call, ``[S, D, ...]``."""
  seeds = suite.config.seeds
  keys = side_by_side.keys(suite.config.merge_seed, 3, seeds)
  pairs = [*itertools.product(range(seeds), range(len(rows)))]
  seed, draw = np.asarray(pairs, np.int32).T
  merged = mesh_lib.map_candidates(
    jax.tree_util.Partial(merge, pool, keys),
    {'seed': seed, 'rows': rows[draw].astype(np.int32)},
    mesh=mesh_lib.make('candidates:1'),
  )
  return side_by_side.fold(jax.tree.map(jnp.asarray, merged), seeds, len(rows))


def _timed(compute: Callable[[], Any], repeats: int) -> tuple[Any, float]:
  """Returns the result and the seconds of the last call; the first compiles."""
  for _ in range(repeats):
    start = time.perf_counter()
    found = jax.block_until_ready(compute())
  return found, time.perf_counter() - start
