"""Bits for each byte: of one model, of merges, of subsets of a pool."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._merge_lm import settings
from experiments._run import console
from experiments._shared import merge_methods, on_mesh, side_by_side
from experiments._shared.texts import language
from wsl import deltas, types
from wsl import mesh as mesh_lib


def of_model(
  setting: settings.Setting, params: types.Params, windows: np.ndarray
) -> np.ndarray:
  """Measures one model.

  Args:
    setting: config and model.
    params: of the model.
    windows: of the domains, ``[D, K, S + 1]``.

  Returns:
    The mean cross-entropy in bits for each byte of each domain, ``[D]``.
  """
  batch_size = setting.config.evaluation.batch_size
  found = language.bits(setting.model, batch_size, params, jnp.asarray(windows))
  return np.asarray(found, np.float64)


def of_merges(
  setting: settings.Setting,
  label: str,
  base: types.Params,
  merged: types.Delta,
  windows: np.ndarray,
  coefs: Sequence[float],
) -> np.ndarray:
  """Measures a delta of each seed at several coefficients.

  Args:
    setting: config and model.
    label: of the progress line.
    base: ``[S, ...]``.
    merged: deltas ``[S, ...]``.
    windows: of the domains, ``[D, K, S + 1]``.
    coefs: L coefficients.

  Returns:
    Bits for each byte, ``[L, S, D]``.
  """
  shape = (len(coefs), setting.config.seeds)
  found = []
  with console.progress(label, shape[0] * shape[1]) as tick:
    for i, s in np.ndindex(shape):
      start, delta = side_by_side.pick((base, merged), s)
      params = deltas.apply(start, delta, coef=coefs[i])
      found.append(of_model(setting, params, windows))
      tick(f'{found[-1].mean():.3f}')
  return np.stack(found).reshape(*shape, -1)


def of_pool(
  setting: settings.Setting, experts: types.Params, windows: np.ndarray
) -> np.ndarray:
  """Measures all experts ``[S, P, ...]``; returns ``[S, P, D]``."""
  shape = jax.tree.leaves(experts)[0].shape[:2]
  found = [
    of_model(setting, side_by_side.pick(experts, *place), windows)
    for place in np.ndindex(shape)
  ]
  return np.stack(found).reshape(*shape, -1)


def of_subsets(
  setting: settings.Setting,
  method: merge_methods.Method,
  base: types.Params,
  stack: types.Deltas,
  members: np.ndarray,
) -> np.ndarray:
  """Merges subsets of a pool, and measures the merges.

  Args:
    setting: config, texts and model.
    method: its first candidate is used.
    base: ``[S, ...]``.
    stack: task vectors of the pool, ``[S, P, ...]``.
    members: the subsets, of one size n, ``[N, n]``.

  Returns:
    Bits for each byte at every coefficient of the method on validation and test
    windows, ``[S, N, L, 2, D]``.
  """
  corpus, config = setting.corpus, setting.config
  windows = np.stack([corpus.validation, corpus.test])
  windows = windows[:, :, : config.wild.windows]
  shape = (config.seeds, len(members))
  seed, row = (x.reshape(-1) for x in np.indices(shape))
  candidates = {
    'seed': seed.astype(np.int32),
    'members': members[row].astype(np.int32),
    'number': np.arange(len(row), dtype=np.int32),
  }
  fn = jax.tree_util.Partial(
    _of_subset(method, setting.model, config.evaluation.batch_size),
    base,
    stack,
    jnp.asarray(windows.reshape(-1, *windows.shape[2:])),
    side_by_side.keys(config.seed, 9, 1)[0],
  )
  label = f'{method.name} of {members.shape[1]}'
  mesh = setting.mesh or mesh_lib.make('candidates:1')
  found = np.asarray(on_mesh.evaluate(label, fn, candidates, mesh), np.float64)
  return found.reshape(*shape, len(method.coefs), 2, -1)


def _of_subset(
  method: merge_methods.Method, model: Any, batch_size: int
) -> Callable[..., types.Array]:
  """Returns a function of base, pool, windows, key and one candidate."""
  coefs = np.asarray(method.coefs, np.float32)

  def of_subset(
    base: types.Params,
    stack: types.Deltas,
    windows: types.Array,
    key: types.PRNGKey,
    candidate: dict[str, types.Array],
  ) -> types.Array:
    base, pool = side_by_side.pick((base, stack), candidate['seed'])
    chosen = side_by_side.pick(pool, candidate['members'])
    supplied = {'key': jax.random.fold_in(key, candidate['number'])}
    merged = merge_methods.apply(
      method, method.candidates[0], base, chosen, supplied
    )

    def at(coef: types.Array) -> types.Array:
      params = deltas.apply(base, merged, coef=coef)
      return language.bits(model, batch_size, params, windows)

    return jax.lax.map(at, jnp.asarray(coefs))

  return of_subset
