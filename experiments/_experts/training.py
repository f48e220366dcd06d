"""The trainings: a dense base, continued dense, upcycled, and from scratch."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experts import settings
from experiments._shared import side_by_side
from experiments._shared.texts import language
from wsl import models, surgery, tree, types


def base(setting: settings.Setting) -> types.Params:
  """Trains a dense model for each seed, ``[S, ...]``."""
  starts = _draw(setting, setting.dense, 0)
  return _dense(setting, 'base', starts, 0, 1.0)


def dense(
  setting: settings.Setting, base: types.Params, budget: float
) -> types.Params:
  """Continues the base for a budget."""
  return _dense(setting, f'dense {budget:g}', base, 1, budget)


def upcycled(
  setting: settings.Setting, base: types.Params, budget: float
) -> types.Params:
  """Continues copies of the base's perceptrons as experts, for a budget."""
  config = setting.config
  keys = side_by_side.keys(config.seed, 2, config.seeds)
  start = functools.partial(
    surgery.upcycle, experts=config.experts.count, width=setting.dense.width
  )
  starts = jax.vmap(lambda params, key: start(params, key=key))(base, keys)
  return _sparse(setting, f'upcycled {budget:g}', starts, 2, budget)


def scratch(setting: settings.Setting, budget: float) -> types.Params:
  """Trains experts from scratch, for the base's compute and the budget."""
  starts = _draw(setting, setting.sparse, 3)
  return _sparse(setting, f'scratch {budget:g}', starts, 3, 1 + budget)


def advance(
  setting: settings.Setting,
  label: str,
  loss: Callable[..., types.Array],
  starts: types.Params,
  stage: int,
  steps: int,
  rate: float,
  bound: types.Tree = None,
) -> types.Params:
  """Trains R runs on the windows of all domains.

  Args:
    setting: of the run.
    label: of the progress line.
    loss: maps ((windows, bound), params, rows, key) to a number.
    starts: ``[R, ...]``.
    stage: of the experiment, for the keys.
    steps: of the training.
    rate: peak learning rate.
    bound: arrays of each run, ``[R, ...]``.

  Returns:
    The trained parameters ``[R, ...]``.
  """
  corpus, config = setting.corpus, setting.config
  runs = jax.tree.leaves(starts)[0].shape[0]
  return side_by_side.advance_all(
    label,
    loss,
    starts,
    side_by_side.keys(config.seed, stage, runs),
    (corpus.train, corpus.rows.reshape(-1), bound),
    _of_run,
    steps=steps,
    batch_size=config.batch_size,
    rate=rate,
    at_once=config.at_once,
  )


# One function for each model: programs are kept as long as their functions.
@functools.lru_cache(maxsize=8)
def sparse_loss(model: Any, balance: float) -> Callable[..., types.Array]:
  """Returns the cross-entropy with the balance loss of all layers.

  ``bound`` is None, or the group of each expert ``[layers, E]``: the parameters
  then have one expert for each group.
  """

  def loss(
    bound: tuple[types.Array, types.Array | None],
    params: types.Params,
    rows: types.Array,
    key: types.PRNGKey,
  ) -> types.Array:
    del key
    windows, tables = bound
    inputs, targets = language.split(windows[rows])
    if tables is not None:
      params = tie(params, tables)
    logits, routers = models.router_logits(model, params, inputs)
    even = [models.load_balance(s, top_k=model.top_k) for s in routers.values()]
    return language.cross_entropy(logits, targets) + balance * sum(
      even[1:], even[0]
    )

  return loss


def tie(params: types.Params, tables: types.Array) -> types.Params:
  """Repeats the experts of groups, by a table ``[layers, E]``."""
  new = dict(params)
  for i, table in enumerate(tables):
    mlp = params[f'block_{i}']['mlp']
    experts = jax.tree.map(lambda x, t=table: x[t], mlp['experts'])
    new[f'block_{i}'] = {
      **params[f'block_{i}'], 'mlp': {**mlp, 'experts': experts}
    }  # fmt: skip
  return new


def bits(
  setting: settings.Setting, model: Any, params: types.Params, split: str
) -> np.ndarray:
  """Measures a model of each seed; returns bits for each byte ``[S, D]``."""
  windows = jnp.asarray(getattr(setting.corpus, split))
  size = setting.config.evaluation.batch_size
  runs = jax.tree.leaves(params)[0].shape[0]
  found = [
    language.bits(model, size, side_by_side.pick(params, s), windows)
    for s in range(runs)
  ]
  return np.asarray(jnp.stack(found), np.float64)


def _draw(setting: settings.Setting, model: Any, stage: int) -> types.Params:
  """Draws a model for each seed, ``[S, ...]``."""
  config = setting.config
  keys = side_by_side.keys(config.seed, 10 + stage, config.seeds)
  draw = functools.partial(settings.init, config, model)
  return jax.jit(jax.vmap(draw))(keys)


def _dense(
  setting: settings.Setting,
  label: str,
  starts: types.Params,
  stage: int,
  budget: float,
) -> types.Params:
  """Trains dense models for a budget."""
  return advance(
    setting,
    label,
    _dense_loss(setting.dense),
    starts,
    stage,
    settings.steps(setting, 'dense', budget),
    setting.config.base.rate,
  )


def _sparse(
  setting: settings.Setting,
  label: str,
  starts: types.Params,
  stage: int,
  budget: float,
) -> types.Params:
  """Trains models with experts for a budget."""
  return advance(
    setting,
    label,
    sparse_loss(setting.sparse, setting.config.experts.balance),
    starts,
    stage,
    settings.steps(setting, 'sparse', budget),
    setting.config.base.rate,
  )


@functools.lru_cache(maxsize=4)
def _dense_loss(model: Any) -> Callable[..., types.Array]:
  """Returns the cross-entropy of a dense model."""
  loss = language.loss_fn(model)
  return lambda bound, params, rows, key: loss(bound[0], params, rows, key)


def _of_run(
  shared: tuple[types.Array, types.Array, types.Tree], run: types.Array
) -> tuple[tuple[types.Array, types.Tree], types.Array]:
  """Returns the windows with the bound arrays of a run, and the rows."""
  windows, rows, bound = shared
  return (windows, tree.map(_pick, bound, run=run)), rows


def _pick(x: types.Array, *, run: types.Array) -> types.Array:
  return x[run]
