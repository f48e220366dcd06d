"""Merges of the main experts: chosen on validation text, measured on test."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._merge_lm import scoring, settings
from experiments._run import console
from experiments._shared import merge_methods, side_by_side
from wsl import deltas, search, tree, types

SOUP = 'greedy_soup'


class Models(NamedTuple):
  """The models of all seeds.

  Attributes:
    base: ``[S, ...]``.
    main: experts of the main recipe, ``[S, D, ...]``.
    stack: their task vectors, ``[S, D, ...]``.
    grams: their Gram matrices, ``[S, D, ...]``, or None.
  """

  base: types.Params
  main: types.Params
  stack: types.Deltas
  grams: types.Tree


def sweep(
  setting: settings.Setting, method: merge_methods.Method, models: Models
) -> dict[str, Any]:
  """Merges with every candidate, selects on validation, measures on test.

  Args:
    setting: config, texts and model.
    method: with its candidates and coefficients.
    models: of all seeds.

  Returns:
    ``arguments``, ``coef``, ``validation`` and ``test``, bits for each byte
    ``[S, D]``, of the choice with the least mean over seeds and domains;
    ``data`` that the merge reads; ``seconds`` of one merge.
  """
  corpus = setting.corpus
  merges, scores, seconds = [], [], []
  for arguments in method.candidates:
    merged, took = merge_seeds(setting, method, arguments, models)
    merges.append(merged)
    seconds.append(took)
    scores.append(
      scoring.of_merges(
        setting,
        method.name,
        models.base,
        merged,
        corpus.validation,
        method.coefs,
      )
    )
  table = np.stack(scores)
  means = table.mean((2, 3))
  c, i = (int(n) for n in np.unravel_index(means.argmin(), means.shape))
  coef = method.coefs[i]
  test = scoring.of_merges(
    setting, 'test', models.base, merges[c], corpus.test, (coef,)
  )
  return {
    'arguments': method.candidates[c],
    'coef': coef,
    'data': method.data,
    'seconds': seconds[c],
    'validation': table[c, i].tolist(),
    'test': test[0].tolist(),
  }


def merge_seeds(
  setting: settings.Setting,
  method: merge_methods.Method,
  arguments: dict[str, dict[str, Any]],
  models: Models,
) -> tuple[types.Delta, float]:
  """Merges the experts of each seed; returns the median time of a merge too."""
  config = setting.config
  keys = side_by_side.keys(config.seed, 8, config.seeds)
  merged, times = [], []
  for s in (0, *range(config.seeds)):  # the first call compiles
    base, stack = side_by_side.pick((models.base, models.stack), s)
    supplied = {'key': keys[s]}
    if method.statistics:
      supplied['grams'] = side_by_side.pick(models.grams, s)
    begin = time.perf_counter()
    found = merge_methods.apply(method, arguments, base, stack, supplied)
    merged.append(jax.block_until_ready(found))
    times.append(time.perf_counter() - begin)
  return tree.stack(merged[1:]), float(np.median(times[1:]))


def soup(setting: settings.Setting, models: Models) -> dict[str, Any]:
  """Averages the experts that do not raise the mean validation loss.

  Returns:
    As ``sweep``; and ``members``, the experts of each seed.
  """
  corpus = setting.corpus
  split = {'validation': corpus.validation, 'test': corpus.test}
  bits: dict[str, list[Any]] = {name: [] for name in split}
  score = lambda params: (
    -float(scoring.of_model(setting, params, corpus.validation).mean())
  )
  members, times = [], []
  with console.progress(SOUP, setting.config.seeds) as tick:
    for s in range(setting.config.seeds):
      experts = [
        side_by_side.pick(models.main, s, d) for d in range(len(corpus.names))
      ]
      begin = time.perf_counter()
      best = search.greedy_soup(score, experts)
      times.append(time.perf_counter() - begin)
      members.append(best.members)
      for name, windows in split.items():
        found = scoring.of_model(setting, best.params, windows)
        bits[name].append(found.tolist())
      tick(f'{-best.score:.3f}')
  return {
    'arguments': {},
    'coef': 1.0,
    'data': 'unlabelled',
    'seconds': float(np.median(times)),
    **bits,
    'members': members,
  }


def bounds(
  setting: settings.Setting, models: Models, joint: types.Params
) -> dict[str, Any]:
  """Measures base, joint training, and each domain's own main expert.

  Returns:
    ``base``, ``joint`` and ``experts``, with bits for each byte ``[S, D]`` on
    ``validation`` and ``test``.
  """
  pool = jax.tree.map(
    lambda base, joint, main: jnp.concatenate(
      [base[:, None], joint[:, None], main], 1
    ),
    models.base,
    joint,
    models.main,
  )
  found: dict[str, Any] = {'base': {}, 'joint': {}, 'experts': {}}
  for split in ('validation', 'test'):
    bits = scoring.of_pool(setting, pool, getattr(setting.corpus, split))
    own = np.diagonal(bits[:, 2:], axis1=1, axis2=2)
    found['base'][split] = bits[:, 0].tolist()
    found['joint'][split] = bits[:, 1].tolist()
    found['experts'][split] = own.tolist()
  return found


def best_merge(
  setting: settings.Setting, models: Models, results: dict[str, Any]
) -> tuple[str, types.Params]:
  """Returns the merge of least validation loss: its name, its first seed."""
  chosen = min(
    setting.methods, key=lambda m: np.mean(results[m.name]['validation'])
  )
  found = results[chosen.name]
  merged, _ = merge_seeds(setting, chosen, found['arguments'], models)
  base, delta = side_by_side.pick((models.base, merged), 0)
  return chosen.name, deltas.apply(base, delta, coef=found['coef'])
