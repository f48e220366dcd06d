"""Texts, dense and sparse language models, and their cost."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from experiments._run import checks, public_calls
from experiments._shared import side_by_side
from experiments._shared.texts import corpus as corpus_lib
from experiments._shared.texts import embedded, language
from wsl import align, models, stats, tree, types

# A backward pass computes two products for each of the forward pass.
_PASSES = 3
KINDS = ('upcycled', 'scratch')


class Setting(NamedTuple):
  """Texts and models of a run.

  Attributes:
    config: of the run.
    corpus: windows of the D domains.
    dense: the dense module.
    sparse: the module with experts, whose capacity is bounded.
    exact: the same, without a bound: for evaluation.
    symmetry: of one expert.
    flops: of a training step for each byte, of ``dense`` and of ``sparse``.
  """

  config: ml_collections.ConfigDict
  corpus: corpus_lib.Corpus
  dense: Any
  sparse: Any
  exact: Any
  symmetry: align.Symmetry
  flops: dict[str, float]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads texts and checks the config; see ``experiment.Run`` for errors."""
  if config.data == corpus_lib.EMBEDDED:
    checks.choices('domains', config.domains, tuple(embedded.TEXTS))
  public_calls.check(
    models.LanguageModel,
    config.model,
    supplied=('vocabulary', 'experts', 'top_k', 'capacity'),
    where='model',
  )
  count = config.experts.count
  checks.sizes(
    {
      'experts.count': (count, 2, None),
      'experts.top_k': (config.experts.top_k, 1, count),
      'merge.averages': (tuple(config.merge.averages), 1, count),
      'fine_tuning.count': (config.fine_tuning.count, 1, count),
      'fine_tuning.steps': (config.fine_tuning.steps, 1, None),
      'merge.windows': (config.merge.windows, 1, None),
      'seeds': (config.seeds, 1, None),
      'length': (config.length, 2, None),
      'base.steps': (config.base.steps, side_by_side.SEGMENTS, None),
      'at_once': (config.at_once, 1, None),
      'evaluation.windows': (config.evaluation.windows, 1, None),
    }
  )
  budgets = list(config.budgets)
  if not budgets or budgets != sorted(budgets) or budgets[0] <= 0:
    raise ValueError(f'budgets={budgets}: expected growing numbers above 0')
  if config.experts.capacity <= 0:
    raise ValueError(
      f'experts.capacity={config.experts.capacity}: expected a number above 0'
    )
  corpus = corpus_lib.load(config)
  checks.sizes(
    {
      'batch_size': (config.batch_size, 1, corpus.rows.shape[1]),
      'merge.windows': (config.merge.windows, 1, corpus.rows.shape[1]),
    }
  )
  dense = models.LanguageModel(vocabulary=256, **config.model)
  more = {'experts': count, 'top_k': config.experts.top_k}
  sparse = dense.clone(**more, capacity=config.experts.capacity)
  exact = dense.clone(**more)
  flops = {'dense': _flops(config, dense), 'sparse': _flops(config, sparse)}
  setting = Setting(
    config, corpus, dense, sparse, exact, _symmetry(dense), flops
  )
  if steps(setting, 'sparse', budgets[0]) < side_by_side.SEGMENTS:
    raise ValueError(
      f'budgets={budgets}: the first pays for fewer than '
      f'{side_by_side.SEGMENTS} steps with experts: take more of it'
    )
  return setting


def describe(setting: Setting) -> str:
  """Returns the sizes of a run in one line."""
  config, corpus = setting.config, setting.corpus
  sizes = [
    sum(tree.sizes(shapes(config, model)).values())
    for model in (setting.dense, setting.sparse)
  ]
  ratio = setting.flops['sparse'] / setting.flops['dense']
  return (
    f'{len(corpus.names)} domains ({", ".join(corpus.names)}), {config.seeds} '
    f'seeds; dense model of {sizes[0]:,} parameters, with '
    f'{config.experts.count} experts {sizes[1]:,}, a step is {ratio:.2f} times '
    'the FLOPs'
  )


def steps(setting: Setting, model: str, budget: float) -> int:
  """Returns the training steps that a budget pays for, a multiple of ten.

  Args:
    setting: of the run.
    model: ``'dense'`` or ``'sparse'``.
    budget: compute relative to that of the base.
  """
  share = setting.flops['dense'] / setting.flops[model]
  whole = round(budget * setting.config.base.steps * share)
  return whole // side_by_side.SEGMENTS * side_by_side.SEGMENTS


def init(
  config: ml_collections.ConfigDict, model: Any, key: types.PRNGKey
) -> types.Params:
  """Draws the parameters of a model."""
  tokens = jnp.zeros((1, config.length), jnp.int32)
  params: types.Params = model.init(key, tokens)['params']
  return params


def shapes(config: ml_collections.ConfigDict, model: Any) -> types.Params:
  """Returns the shapes of the parameters."""
  draw = lambda key: init(config, model, key)
  return jax.eval_shape(draw, jax.random.key(0))


def _flops(config: ml_collections.ConfigDict, model: Any) -> float:
  """Returns the FLOPs of a training step, for each byte of a batch."""
  tokens = jax.ShapeDtypeStruct((config.batch_size, config.length), jnp.int32)
  found = stats.cost(language.apply_fn(model), shapes(config, model), tokens)
  return _PASSES * found.flops / tokens.size


def _symmetry(model: Any) -> align.Symmetry:
  """Returns the symmetry of one expert."""
  expert = models.SwiGLU(model.hidden)
  x = jnp.zeros((1, model.width))
  shape = jax.eval_shape(expert.init, jax.random.key(0), x)['params']
  return align.find_symmetry(
    lambda p, x: expert.apply({'params': p}, x), shape, x
  )
