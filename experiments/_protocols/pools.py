"""Pools of experts: one for each task, and unlike ones with mixed tasks."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._protocols import settings
from experiments._run import records
from experiments._shared import (
  merge_methods,
  side_by_side,
  suite_accuracy,
  suite_training,
  suites,
)
from wsl import data, types


class Pool(NamedTuple):
  """S seeds of a base and P experts.

  Attributes:
    base: encoders, ``[S, ...]``.
    stack: the experts' task vectors, ``[S, P, ...]``.
    heads: of all K tasks, ``[S, K, ...]``, frozen.
    supplied: statistics of the experts by name, ``[S, P, ...]``.
  """

  base: types.Params
  stack: types.Deltas
  heads: types.Params
  supplied: dict[str, types.Tree]


def train(
  out: records.Run, setting: settings.Setting, size: str, suite: suites.Suite
) -> tuple[Pool, Pool]:
  """Trains both pools of a size, or loads them.

  Args:
    out: the run whose parts they are.
    setting: with the numbers of experts.
    size: of the model.
    suite: all tasks, and the model.

  Returns:
    The pool of one expert for each task, and that of unlike experts.
  """
  start = out.arrays(f'{size}.base', lambda: suite_training.base(suite))
  base, heads = start['encoder'], start['heads']
  narrow = _first_tasks(suite, setting.experts)
  own = jax.tree.map(lambda x: x[:, : setting.experts], heads)
  experts = out.arrays(
    f'{size}.experts', lambda: suite_training.experts(narrow, base, own)
  )
  needed = [
    name
    for protocol in (settings.BENCH, settings.SCALE)
    for name in merge_methods.statistics(setting.methods[protocol])
  ]
  lead = (suite.config.seeds, setting.experts)
  supplied = {
    name: out.arrays(
      f'{size}.{name}',
      functools.partial(suites.measure, narrow, name, experts, own),
      like=suites.abstract(narrow, name, lead),
    )
    for name in dict.fromkeys(needed)
  }
  groups = [
    out.arrays(
      f'{size}.{name}',
      functools.partial(_unlike, setting, suite, name, base, heads),
    )
    for name in setting.tasks
  ]
  wild = jax.tree.map(lambda *x: jnp.concatenate(x, 1), *groups)
  vectors = jax.jit(suite_training.task_vectors)
  return (
    Pool(base, vectors(base, experts), heads, supplied),
    Pool(base, vectors(base, wild), heads, {}),
  )


def bounds(suite: suites.Suite, special: Pool, wild: Pool) -> dict[str, Any]:
  """Returns test accuracies on all tasks: base ``[S, K]``, experts, both pools.

  Experts are ``[S, P, K]``; ``alone`` are the unlike ones.
  """
  zero = jax.tree.map(jnp.zeros_like, special.base)
  split = suite.tasks.test
  base = suite_accuracy.of_all(
    suite, special.base, zero, special.heads, split, (0.0,)
  )
  return {
    'base': base[0].tolist(),
    'experts': _of_experts(suite, special).tolist(),
    'alone': _of_experts(suite, wild).tolist(),
  }


def accuracy(
  suite: suites.Suite,
  pool: Pool,
  merged: types.Deltas,
  split: data.Split,
  coefs: tuple[float, ...],
) -> np.ndarray:
  """Measures N models of each seed on all tasks.

  Args:
    suite: tasks and model.
    pool: whose base and heads they have.
    merged: task vectors, ``[S, N, ...]``.
    split: images and labels, ``[K, images, ...]``.
    coefs: L coefficients.

  Returns:
    Accuracies ``[L, S, N, K]``.
  """
  count = jax.tree.leaves(merged)[0].shape[1]
  repeat = lambda x: jnp.repeat(jnp.asarray(x), count, axis=0)
  base, heads = jax.tree.map(repeat, (pool.base, pool.heads))
  found = suite_accuracy.of_all(
    suite, base, side_by_side.flat(merged), heads, split, coefs
  )
  return found.reshape(len(coefs), -1, count, found.shape[-1])


def _of_experts(suite: suites.Suite, pool: Pool) -> np.ndarray:
  """Returns the test accuracy of each expert on all tasks, ``[S, P, K]``."""
  return accuracy(suite, pool, pool.stack, suite.tasks.test, (1.0,))[0]


def _first_tasks(suite: suites.Suite, count: int) -> suites.Suite:
  """Returns the suite of the first tasks only."""
  tasks = suite.tasks
  cut: dict[str, Any] = {
    part: data.Split(*(x[:count] for x in getattr(tasks, part)))
    for part in ('train', 'validation', 'test')
  }
  return suite._replace(tasks=tasks._replace(names=tasks.names[:count], **cut))


def _unlike(
  setting: settings.Setting,
  suite: suites.Suite,
  name: str,
  base: types.Params,
  heads: types.Params,
) -> types.Params:
  """Trains one group of unlike experts; returns encoders ``[S, E, ...]``."""
  config, split = suite.config, suite.tasks.train
  group, subsets = config[settings.WILD].groups[name], setting.tasks[name]
  experts, each = subsets.shape
  # Some labels are replaced by random ones, others in each expert.
  random = np.random.default_rng(config.seed)
  labels = np.asarray(split.y)[subsets]  # [E, k, N]
  wrong = random.random(labels.shape) < group.noise
  other = random.integers(0, suite.tasks.classes, labels.shape)
  labels = np.where(wrong, other, labels).astype(labels.dtype)

  def own(shared: Any, run: types.Array) -> tuple[types.Params, Any]:
    heads, x, subsets, labels = shared
    mine = subsets[run % experts]
    task = jnp.repeat(mine, x.shape[1])
    y = labels[run % experts].reshape(-1)
    images = x[mine].reshape(-1, *x.shape[2:])
    return side_by_side.pick(heads, run // experts), (images, y, task)

  keys = jax.vmap(functools.partial(jax.random.split, num=experts))
  stage = 5 + [*setting.tasks].index(name)
  trained = side_by_side.advance_all(
    name,
    functools.partial(suite_training.mixture_loss, suite),
    jax.tree.map(lambda x: jnp.repeat(x, experts, axis=0), base),
    keys(suites.keys(suite, stage)).reshape(-1),
    (heads, split.x, subsets, labels),
    own,
    steps=group.epochs * (each * split.y.shape[1] // config.experts.batch_size),
    batch_size=config.experts.batch_size,
    rate=group.rate,
    at_once=config.at_once,
  )
  return side_by_side.fold(trained, config.seeds, experts)
