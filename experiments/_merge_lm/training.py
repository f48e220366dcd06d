"""The trainings: a base, experts of every domain and recipe, one for all."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._merge_lm import settings
from experiments._run import console
from experiments._shared import side_by_side
from experiments._shared.texts import language
from wsl import tree, types


def base(setting: settings.Setting) -> types.Params:
  """Trains a model on all domains for each seed, ``[S, ...]``."""
  keys = _keys(setting, 0)
  starts = jax.jit(jax.vmap(functools.partial(settings.init, setting)))(keys)
  return _on_all(setting, 'base', starts, keys, setting.config.base)


def joint(setting: settings.Setting, base: types.Params) -> types.Params:
  """Continues the base on all domains, for the steps of its main experts."""
  recipe = setting.config.recipes[setting.config.main].to_dict()
  recipe['steps'] *= len(setting.corpus.names)
  recipe = ml_collections.ConfigDict(recipe)
  return _on_all(setting, 'joint', base, _keys(setting, 1), recipe)


def experts(
  setting: settings.Setting, base: types.Params, recipe: str
) -> types.Params:
  """Continues the base on each domain by one recipe, ``[S, D, ...]``."""
  config, rows = setting.config, setting.corpus.rows
  count = len(rows)
  starts = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), base)
  stage = 2 + sorted(config.recipes).index(recipe)
  split = jax.vmap(functools.partial(jax.random.split, num=count))
  keys = split(_keys(setting, stage)).reshape(-1)
  own = np.tile(rows, (config.seeds, 1))
  chosen = config.recipes[recipe]
  found = _advance(setting, recipe, starts, keys, own, chosen)
  return side_by_side.fold(found, config.seeds, count)


def grams(setting: settings.Setting, experts: types.Params) -> types.Tree:
  """Computes Gram matrices of all experts on their domains, ``[S, D, ...]``."""
  config, corpus = setting.config, setting.corpus
  seeds, count = config.seeds, len(corpus.names)
  found = []
  with console.progress('grams', seeds * count) as tick:
    for s, d in np.ndindex(seeds, count):
      params = side_by_side.pick(experts, s, d)
      rows = corpus.rows[d, : config.statistics.windows]
      tokens, _ = language.split(jnp.asarray(corpus.train[rows]))
      found.append(settings.gram(setting, params, tokens))
      tick('')
  return side_by_side.fold(tree.stack(found), seeds, count)


def _keys(setting: settings.Setting, stage: int) -> types.PRNGKey:
  """Returns a key for each seed, different in every stage."""
  return side_by_side.keys(setting.config.seed, stage, setting.config.seeds)


def _on_all(
  setting: settings.Setting,
  label: str,
  starts: types.Params,
  keys: types.PRNGKey,
  recipe: ml_collections.ConfigDict,
) -> types.Params:
  """Trains one model for each seed on all domains, equally often."""
  rows = setting.corpus.rows.reshape(1, -1)
  rows = np.repeat(rows, setting.config.seeds, axis=0)
  return _advance(setting, label, starts, keys, rows, recipe)


def _advance(
  setting: settings.Setting,
  label: str,
  starts: types.Params,
  keys: types.PRNGKey,
  rows: np.ndarray,
  recipe: ml_collections.ConfigDict,
) -> types.Params:
  """Trains R runs, each on its rows ``[R, ...]`` of the training windows."""
  return side_by_side.advance_all(
    label,
    language.loss_fn(setting.model),
    starts,
    keys,
    (setting.corpus.train, rows),
    _own_rows,
    steps=recipe.steps,
    batch_size=setting.config.batch_size,
    rate=recipe.rate,
    at_once=setting.config.at_once,
    mesh=setting.mesh,
  )


def _own_rows(
  shared: tuple[types.Array, types.Array], run: types.Array
) -> tuple[types.Array, types.Array]:
  """Returns the windows and the rows of one run."""
  windows, rows = shared
  return windows, rows[run]
