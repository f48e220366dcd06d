"""Texts, networks and their compute."""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from experiments._run import checks, public_calls
from experiments._shared.texts import corpus as corpus_lib
from experiments._shared.texts import embedded, language
from wsl import models, stitch, surgery, train, tree, types

# Cuts to fewer blocks, and networks that share blocks at full depth.
REMOVED = ('crash', 'fold', 'last', 'best', 'scratch')
SHARED = ('stepwise', 'stepwise_rank', 'average', 'average_rank', 'fold_tied')
METHODS = (*REMOVED, *SHARED, 'parallel')
# The leaves of a block that each layer keeps, and that end its branches.
UNTIED, GATED = 'norm', r'(attention/out|mlp/down)/'


class Setting(NamedTuple):
  """Texts and the deep network.

  Attributes:
    config: of the run.
    corpus: windows of the domains.
    model: the Flax module.
    parts: its functions: embedding, block and head.
  """

  config: ml_collections.ConfigDict
  corpus: corpus_lib.Corpus
  model: Any
  parts: tuple[Callable[..., Any], ...]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads texts and checks the config; see ``experiment.Run`` for errors."""
  if config.data == corpus_lib.EMBEDDED:
    checks.choices('domains', config.domains, tuple(embedded.TEXTS))
  public_calls.check(
    models.LanguageModel,
    config.model,
    supplied=('vocabulary', 'depth', 'tied'),
    where='model',
  )
  checks.choices('cuts.methods', config.cuts.methods, METHODS)
  depth = config.depth
  budgets = tuple(config.budgets)
  if not budgets or [*budgets] != sorted(set(budgets)):
    raise ValueError(f'budgets={budgets}: expected rising numbers of steps')
  checks.sizes(
    {
      'seeds': (config.seeds, 1, None),
      'length': (config.length, 2, None),
      'depth': (depth, 4, None),
      'growth': (config.growth, 2, depth),
      'budgets': (budgets, 10, None),
      'small_share': (config.small_share, 0.01, 0.99),
      'cuts.keep': (config.cuts.keep, 2, depth - 1),
      'cuts.steps': (config.cuts.steps, 10, None),
      'cuts.rank': (config.cuts.rank, 1, None),
      'cuts.gate_steps': (config.cuts.gate_steps, 1, None),
      'paths.windows': (config.paths.windows, 1, None),
      'paths.simulations': (config.paths.simulations, 0, None),
      'paths.longest': (config.paths.longest, depth, None),
      'evaluation.windows': (config.evaluation.windows, 1, None),
    }
  )
  for steps in (*budgets, config.cuts.steps):
    if steps % 10:
      raise ValueError(f'steps={steps}: expected a multiple of 10')
  if depth % config.growth or depth % 2:
    raise ValueError(
      f'depth={depth}: growth={config.growth} and 2 have to divide it'
    )
  module = models.LanguageModel(
    vocabulary=256, depth=depth, tied=False, **config.model
  )
  corpus = corpus_lib.load(config)
  parts = _parts(module, config.length)
  checks.sizes({'batch_size': (config.batch_size, 1, corpus.rows.shape[1])})
  return Setting(config, corpus, module, parts)


def describe(setting: Setting) -> str:
  """Returns the sizes of a run in one line."""
  config = setting.config
  one = jax.eval_shape(lambda: init(setting, config.depth, jax.random.key(0)))
  size = sum(tree.sizes(one).values())
  return (
    f'{len(setting.corpus.names)} domains, '
    f'{setting.corpus.train.size:,} training bytes; {config.depth} blocks, '
    f'{size:,} parameters; budgets of {list(config.budgets)} steps, '
    f'{config.seeds} seeds'
  )


@functools.lru_cache(maxsize=4)
def _parts(module: Any, length: int) -> tuple[Callable[..., Any], ...]:
  """Returns the functions of the network's parts, for any depth."""
  shapes = jax.eval_shape(
    functools.partial(language_init, module, length), jax.random.key(0)
  )
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  found = models.segments(module, zeros)
  assert not isinstance(found.block, tuple)
  return found.embed, found.block, found.head


def language_init(module: Any, length: int, key: types.PRNGKey) -> types.Params:
  """Draws the parameters of a module."""
  params: types.Params = module.init(key, jnp.zeros((1, length), jnp.int32))[
    'params'
  ]
  return params


def init(setting: Setting, depth: int, key: types.PRNGKey) -> types.Params:
  """Draws the parts ``{'embed', 'blocks', 'head'}`` of a network."""
  module = setting.model.copy(depth=depth)
  params = language_init(module, setting.config.length, key)
  return models.segments(module, params).params


def network(setting: Setting, params: types.Params) -> stitch.Segmented:
  """Returns the network of parts with any number of stacked blocks."""
  return stitch.Segmented(params, *setting.parts)


def materialise(params: Any) -> types.Params:
  """Returns the parts of a network whose layers may share weights."""
  return surgery.untie(params) if isinstance(params, surgery.Tied) else params


# One function for all trainings and evaluations, which share its programs.
@functools.lru_cache(maxsize=4)
def apply_fn(
  parts: tuple[Callable[..., Any], ...],
) -> Callable[[Any, types.Array], types.Array]:
  """Returns the function from (params, tokens) to logits."""
  return lambda params, tokens: stitch.apply(
    stitch.Segmented(materialise(params), *parts), tokens
  )


@functools.lru_cache(maxsize=4)
def loss_fn(parts: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
  """Returns the loss of (windows, params, rows, key), in nats for each byte."""

  def loss(
    windows: types.Array, params: Any, rows: types.Array, key: types.PRNGKey
  ) -> types.Array:
    del key
    inputs, targets = language.split(windows[rows])
    logits = apply_fn(parts)(params, inputs)
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, targets
    ).mean()

  return loss


def bits(setting: Setting, params: Any, windows: Any) -> list[float]:
  """Measures R networks; returns bits for each byte, ``[R]``."""
  flat = jnp.asarray(windows).reshape(-1, windows.shape[-1])
  size = setting.config.evaluation.batch_size
  found = _bits(apply_fn(setting.parts), size, params, flat)
  return [float(x) for x in found]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _bits(
  run: Callable[..., Any], size: int, params: Any, windows: types.Array
) -> types.Array:
  """Returns the cross-entropy of R networks in bits for each byte, ``[R]``."""
  data = language.split(windows)

  def one(params: Any) -> types.Array:
    loss = train.evaluate(run, params, data, batch_size=size).loss
    return loss / math.log(2)

  return jax.lax.map(one, params)


def compute(setting: Setting, depth: int) -> float:
  """Returns the floating-point operations of a step: 6 N for each byte.

  N counts the weights of the blocks and of the output map.
  """
  shapes = jax.eval_shape(lambda: init(setting, depth, jax.random.key(0)))
  used = [shapes['blocks'], shapes['head']]
  weights = sum(sum(tree.sizes(x).values()) for x in used)
  config = setting.config
  return 6.0 * weights * config.batch_size * config.length
