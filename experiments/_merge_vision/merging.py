"""Merging of the experts: the choice on validation images, the test."""

import json
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._run import console
from experiments._shared import (
  merge_methods,
  side_by_side,
  suite_accuracy,
  suites,
)
from wsl import checkpoint, deltas, tree, types


class Models(NamedTuple):
  """Base, task vectors and heads, and the statistics that merges use.

  Attributes:
    base: encoders, ``[S, ...]``.
    stack: the experts' task vectors, ``[S, T, ...]``.
    heads: ``[S, T, ...]``, not merged.
    supplied: statistics of the experts by name, ``[S, T, ...]``.
  """

  base: types.Params
  stack: types.Deltas
  heads: types.Params
  supplied: dict[str, types.Tree]


def bounds(
  suite: suites.Suite,
  base: types.Params,
  stack: types.Deltas,
  joint: types.Params,
  heads: types.Params,
) -> dict[str, Any]:
  """Returns the accuracies ``[S, T]`` of base, experts and joint training."""
  difference = jax.tree.map(jnp.subtract, joint, base)
  experts = suite_accuracy.Experts(stack)
  found: dict[str, Any] = {'base': {}, 'experts': {}, 'joint': {}}
  for part in ('validation', 'test'):
    split = getattr(suite.tasks, part)
    both = suite_accuracy.of_all(
      suite, base, difference, heads, split, (0.0, 1.0)
    )
    own = suite_accuracy.of_all(suite, base, experts, heads, split, (1.0,))
    found['base'][part], found['joint'][part] = both.tolist()
    found['experts'][part] = own[0].tolist()
  return found


def sweep(
  suite: suites.Suite, method: merge_methods.Method, models: Models
) -> dict[str, Any]:
  """Merges with every candidate, selects on validation, measures on test."""
  base, heads = models.base, models.heads
  merged, seconds, scores = [], [], []
  with console.progress(method.name, len(method.candidates)) as tick:
    for arguments in method.candidates:
      result, took = merge_seeds(suite, method, arguments, models)
      merged.append(result)
      seconds.append(took)
      scores.append(
        suite_accuracy.of_all(
          suite, base, result, heads, suite.tasks.validation, method.coefs
        )
      )
      best = max(score.mean((1, 2)).max() for score in scores)
      tick(f'validation {100 * best:.1f} %')
  family = merge_methods.is_family(merged[0])
  validation = np.stack(scores)
  picks = choose(validation, family=family)
  chosen, test = np.zeros((2, *validation.shape[2:]))
  for candidate, i in sorted(set(picks)):
    coef = method.coefs[i : i + 1]
    found = suite_accuracy.of_all(
      suite, base, merged[candidate], heads, suite.tasks.test, coef
    )
    mine = [t for t, pick in enumerate(picks) if pick == (candidate, i)]
    chosen[:, mine] = validation[candidate, i][:, mine]
    test[:, mine] = found[0][:, mine]
  first, i = picks[0]
  return {
    'family': family,
    'data': method.data,
    'arguments': method.candidates[first],
    'arguments_by_task': [method.candidates[c] for c, _ in picks],
    'coef': method.coefs[i],
    'coefs': method.coefs,
    'curve': validation[first].mean((1, 2)).tolist(),
    'validation': chosen.tolist(),
    'test': test.tolist(),
    'merge_seconds': seconds[first],
    'evaluations': len(method.candidates) * len(method.coefs),
    'peak_models': peak(suite, method, method.candidates[first], models),
  }


def choose(validation: np.ndarray, *, family: bool) -> list[tuple[int, int]]:
  """Returns the best (candidate, coefficient) for each task.

  Args:
    validation: accuracies ``[candidates, coefficients, S, T]``.
    family: whether each task has a choice of its own.

  Returns:
    T pairs.
  """
  by_task = validation.mean(2)
  if not family:
    by_task = np.broadcast_to(by_task.mean(2, keepdims=True), by_task.shape)
  # argmax over all (candidate, coefficient) pairs, the first of ties.
  flat = by_task.reshape(-1, by_task.shape[2]).argmax(0)
  rows, columns = np.unravel_index(flat, by_task.shape[:2])
  return list(zip(rows.tolist(), columns.tolist()))


def merge_seeds(
  suite: suites.Suite,
  method: merge_methods.Method,
  arguments: dict[str, dict[str, Any]],
  models: Models,
) -> tuple[Any, float]:
  """Merges the experts of each seed; returns the median time of a merge too."""
  merged, times = [], []
  config = suite.config
  keys = side_by_side.keys(config.merge_seed, 3, config.seeds)
  for s in (0, *range(config.seeds)):  # the first call compiles
    one = jax.block_until_ready(side_by_side.pick(models, s))
    begin = time.perf_counter()
    merged.append(
      jax.block_until_ready(merge(suite, method, arguments, one, keys[s]))
    )
    times.append(time.perf_counter() - begin)
  return tree.stack(merged[1:]), float(np.median(times[1:]))


def merge(
  suite: suites.Suite,
  method: merge_methods.Method,
  arguments: dict[str, dict[str, Any]],
  models: Models,
  key: types.PRNGKey,
) -> Any:
  """Merges the experts of one seed."""
  examples = suites.examples(suite, models.heads)
  supplied = {**models.supplied, 'key': key, 'examples': examples}
  return merge_methods.apply(
    method, arguments, models.base, models.stack, supplied, functions(suite)
  )


def peak(
  suite: suites.Suite,
  method: merge_methods.Method,
  arguments: dict[str, dict[str, Any]],
  models: Models,
) -> float:
  """Returns the peak memory of a merge of one seed, in sizes of a model.

  Args:
    suite: tasks and model.
    method: the method.
    arguments: one of its candidates.
    models: of all seeds.

  Returns:
    Bytes of what the merge reads, returns and holds meanwhile, if it is one
    compiled program, by the bytes of the base.
  """
  shape = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
  one, key = jax.tree.map(shape, models), jax.eval_shape(jax.random.key, 0)
  run = lambda models, key: merge(suite, method, arguments, models, key)
  memory: Any = jax.jit(run).lower(one, key).compile().memory_analysis()
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(one.base))
  held = memory.argument_size_in_bytes + memory.output_size_in_bytes
  return (held + memory.temp_size_in_bytes) / size


def functions(suite: suites.Suite) -> dict[str, Any]:
  """Returns the functions of encoders that merges may call, and the blocks."""
  blocks = suite.config.models[suite.config.model].get('blocks')
  found = {'apply_fn': suite.encode, 'loss_fn': suite.loss}
  return found if blocks is None else {**found, 'blocks': blocks}


def save_winner(
  suite: suites.Suite,
  methods: list[merge_methods.Method],
  models: Models,
  won: dict[str, Any] | None,
  file: pathlib.Path,
) -> None:
  """Saves the best merge by validation: encoder and heads of its best seed."""
  if won is None:
    return
  method = next(m for m in methods if m.name == won['method'])
  merged, _ = merge_seeds(suite, method, won['arguments'], models)
  base, delta, heads = side_by_side.pick(
    (models.base, merged, models.heads), won['seed']
  )
  encoder = deltas.apply(base, delta, coef=won['coef'])
  notes = {**won, 'experiment': 'merge_vision', 'tasks': suite.tasks.names}
  checkpoint.save(
    file,
    {'encoder': encoder, 'heads': heads},
    metadata={key: json.dumps(value) for key, value in notes.items()},
  )
