"""Tasks of one model: domains of text, or a vision suite."""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from experiments._run import checks, public_calls
from experiments._shared import suites
from experiments._shared.texts import corpus as corpus_lib
from experiments._shared.texts import embedded, language
from wsl import models, train, types


class Problem(NamedTuple):
  """T tasks of one model: a body that is adapted, and a head for each task.

  Attributes:
    names: of the tasks.
    unit: of the scores, of which more is better.
    train: examples of each task, leaves ``[T, N, ...]``.
    few: those from which the base is trained.
    validation: ``[T, ...]``.
    test: ``[T, ...]``.
    init: maps a key to ``{'body': ..., 'heads': [T, ...]}``.
    loss: maps (body, head, examples ``[B, ...]``) to the mean cross-entropy.
    score: maps (body, head, examples ``[N, ...]``) to the score.
  """

  names: tuple[str, ...]
  unit: str
  train: Any
  few: Any
  validation: Any
  test: Any
  init: Callable[[types.PRNGKey], types.Params]
  loss: Callable[[types.Params, types.Params, Any], types.Array]
  score: Callable[[types.Params, types.Params, Any], types.Array]


def load(config: ml_collections.ConfigDict) -> Problem:
  """Reads the data and builds the model; see ``experiment.Run`` for errors."""
  checks.choice('problem', config.problem, tuple(_PROBLEMS))
  return _PROBLEMS[config.problem](config)


def _language(config: ml_collections.ConfigDict) -> Problem:
  """Returns domains of bytes, and a language model without heads."""
  if config.data == corpus_lib.EMBEDDED:
    checks.choices('domains', config.domains, tuple(embedded.TEXTS))
  public_calls.check(
    models.LanguageModel, config.model, supplied=('vocabulary',), where='model'
  )
  model: Any = models.LanguageModel(vocabulary=256, **config.model)
  corpus = corpus_lib.load(config)

  apply_fn = language.apply_fn(model)

  def loss(body: types.Params, head: Any, windows: types.Array) -> types.Array:
    del head
    tokens, targets = language.split(windows)
    return language.cross_entropy(apply_fn(body, tokens), targets)

  def score(body: types.Params, head: Any, windows: types.Array) -> types.Array:
    del head
    size, examples = config.evaluation.batch_size, language.split(windows)
    found = train.evaluate(apply_fn, body, examples, batch_size=size)
    return -found.loss / math.log(2)

  def init(key: types.PRNGKey) -> types.Params:
    tokens = jnp.zeros((1, config.length), jnp.int32)
    return {'body': model.init(key, tokens)['params'], 'heads': {}}

  windows = corpus.train[corpus.rows]
  return Problem(
    corpus.names, 'bits per byte, negative', windows, windows,
    corpus.validation, corpus.test, init, loss, score,
  )  # fmt: skip


def _vision(config: ml_collections.ConfigDict) -> Problem:
  """Returns the tasks of a suite, an encoder and heads."""
  suite = suites.load(config)
  tasks = suite.tasks

  def loss(body: types.Params, head: types.Params, batch: Any) -> types.Array:
    logits = suite.classify({'encoder': body, 'head': head}, batch.x)
    return language.cross_entropy(logits, batch.y)

  def score(body: types.Params, head: types.Params, split: Any) -> types.Array:
    size = config.evaluation.batch_size
    params = {'encoder': body, 'head': head}
    found = train.evaluate(
      suite.classify, params, tuple(split), batch_size=size
    )
    return 100 * found.accuracy

  def init(key: types.PRNGKey) -> types.Params:
    found = suite.init(key)
    return {'body': found['encoder'], 'heads': found['heads']}

  few = jax.tree.map(lambda x: x[:, : config.base.examples], tasks.train)
  return Problem(
    tuple(tasks.names), 'accuracy, %', tasks.train, few, tasks.validation,
    tasks.test, init, loss, score,
  )  # fmt: skip


_PROBLEMS: dict[str, Callable[[ml_collections.ConfigDict], Problem]] = {
  'language': _language,
  'vision': _vision,
}


def shapes(problem: Problem) -> types.Params:
  """Returns the shapes of the parameters."""
  return jax.eval_shape(problem.init, jax.random.key(0))


def heads_of(problem: Problem, params: types.Params) -> types.Params:
  """Returns the heads ``[S, T, ...]``; none if the model has none."""
  return params.get('heads', {})
