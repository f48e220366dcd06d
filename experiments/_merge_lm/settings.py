"""Texts, the language model, methods and pool of experts of a run."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._run import checks, public_calls
from experiments._shared import merge_methods, protocols
from experiments._shared.texts import corpus as corpus_lib
from experiments._shared.texts import embedded, language
from wsl import merge, models, stats, tree, types

UNTUNED = 1.0  # the coefficient of subsets without validation
# They return a model for each domain.
_FAMILIES = (merge.emr, merge.tall_masks)


class Setting(NamedTuple):
  """Texts, model and methods of a run.

  Attributes:
    config: of the run.
    corpus: windows of the D domains.
    model: the Flax module.
    methods: to compare.
    wild: those that merge subsets of the pool.
    members: the subsets, ``[subsets, P]``.
    mesh: with an axis ``candidates``, or None.
  """

  config: ml_collections.ConfigDict
  corpus: corpus_lib.Corpus
  model: Any
  methods: list[merge_methods.Method]
  wild: list[merge_methods.Method]
  members: np.ndarray
  mesh: jax.sharding.Mesh | None = None


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads texts and checks the config; see ``experiment.Run`` for errors."""
  _check_sizes(config)
  if config.data == corpus_lib.EMBEDDED:
    checks.choices('domains', config.domains, tuple(embedded.TEXTS))
  public_calls.check(
    models.LanguageModel,
    config.model,
    supplied=('vocabulary',),
    where='model',
  )
  model = models.LanguageModel(vocabulary=256, **config.model)
  corpus = corpus_lib.load(config)
  rows = corpus.rows.shape[1]
  checks.sizes({'batch_size': (config.batch_size, 1, rows)})
  checks.choice('main', config.main, list(config.recipes))
  pool = len(corpus.names) * len(config.recipes)
  checks.sizes({'wild.sizes': (tuple(config.wild.sizes), 2, pool)})
  members = protocols.draw_members(
    pool,
    sizes=tuple(config.wild.sizes),
    draws=config.wild.draws,
    key=jax.random.key(config.seed),
  )
  methods, wild = (
    merge_methods.parse(names, config.arguments, coefs)
    for names, coefs in (
      (config.methods, config.coefs),
      (config.wild.methods, {'default': config.wild.coefs}),
    )
  )
  setting = Setting(config, corpus, model, methods, wild, members)
  for method in methods:
    _check_method(setting, method, _grams(setting))
  for method in wild:
    _check_method(setting, method, None)
  return setting


def _check_sizes(config: ml_collections.ConfigDict) -> None:
  """Checks the numbers of a config."""
  limits: dict[str, Any] = {
    'seeds': (config.seeds, 1, None),
    'length': (config.length, 2, None),
    'bytes': (config.bytes, 1, None),
    'at_once': (config.at_once, 1, None),
    'base.steps': (config.base.steps, 1, None),
    'evaluation.windows': (config.evaluation.windows, 1, None),
    'evaluation.batch_size': (config.evaluation.batch_size, 1, None),
    'wild.windows': (config.wild.windows, 1, config.evaluation.windows),
    'wild.draws': (config.wild.draws, 1, None),
    'points': (config.points, 3, None),
    'samples.bytes': (config.samples.bytes, 1, None),
  }
  for name, recipe in config.recipes.items():
    limits[f'recipes.{name}.steps'] = (recipe.steps, 1, None)
  checks.sizes(limits)
  if UNTUNED not in config.wild.coefs:
    raise ValueError(
      f'wild.coefs={config.wild.coefs}: expected {UNTUNED:g} among them'
    )


def _check_method(
  setting: Setting, method: merge_methods.Method, grams: types.Tree
) -> None:
  """Traces a method on shapes, so that errors precede the training."""
  where = f"methods: '{method.name}'"
  if method.statistics and grams is None:
    raise ValueError(f'wild.{where} needs {method.statistics[0]}: leave it out')
  if 'fishers' in method.statistics:
    raise ValueError(f'{where} needs the Fisher information: leave it out')
  if set(_FAMILIES) & set(method.calls):
    raise ValueError(f'{where} makes a model for each domain: leave it out')
  supplied = {'key': jax.eval_shape(jax.random.key, 0), 'grams': grams}
  count = len(setting.corpus.names)
  merge_methods.check(method, shapes(setting), count, supplied)


def _grams(setting: Setting) -> types.Tree:
  """Returns the shapes of the Gram matrices of all experts, ``[D, ...]``."""
  tokens = jnp.zeros((1, setting.config.length), jnp.int32)
  one = functools.partial(gram, setting)
  count = len(setting.corpus.names)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype),
    jax.eval_shape(one, shapes(setting), tokens),
  )


def describe(setting: Setting) -> str:
  """Returns the sizes of a run in one line."""
  config, corpus = setting.config, setting.corpus
  size = sum(tree.sizes(shapes(setting)).values())
  names = ', '.join(corpus.names)
  return (
    f'{len(corpus.names)} domains ({names}) x {len(config.recipes)} recipes x '
    f'{config.seeds} seeds, {corpus.train.size:,} training bytes; language '
    f'model of {size:,} parameters; {len(setting.methods)} methods'
  )


def init(setting: Setting, key: types.PRNGKey) -> types.Params:
  """Draws the parameters of a model."""
  tokens = jnp.zeros((1, setting.config.length), jnp.int32)
  params: types.Params = setting.model.init(key, tokens)['params']
  return params


def shapes(setting: Setting) -> types.Params:
  """Returns the shapes of the parameters."""
  draw = functools.partial(init, setting)
  return jax.eval_shape(draw, jax.random.key(0))


def gram(
  setting: Setting, params: types.Params, tokens: types.Array
) -> types.Tree:
  """Computes the Gram matrices of an expert on tokens ``[B, S]``."""
  return stats.gram(language.apply_fn(setting.model), params, [tokens])
