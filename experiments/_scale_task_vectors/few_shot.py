"""A target task from a few labelled images and the other tasks' vectors.

Every method is trained on the same images in the same batches for the same
number of steps. No validation image is used: the last step is evaluated.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._scale_task_vectors import (
  added_heads,
  few_label_training,
  few_shot_runs,
  task_vectors,
)
from experiments._shared import side_by_side, suites
from wsl import scale, train, types

REFERENCES = ('lora', 'probe', 'full')  # of the setting partition

Trained = few_label_training.Trained
coefs, lora = few_label_training.coefs, few_label_training.lora


def _cells(suite: suites.Suite) -> tuple[str, int]:
  """Returns the partition of the setting ``few_shot``."""
  return 'random', suite.config.few_shot.cells


# Functions of suite and models, by method.
METHODS: Mapping[
  str, Callable[[suites.Suite, task_vectors.Models], Trained]
] = {
  'isotropic': lambda suite, models: coefs(suite, models, 'task'),
  'anisotropic': lambda suite, models: coefs(suite, models, 'leaf'),
  'partition': lambda suite, models: coefs(suite, models, _cells(suite)),
  'tip': lambda suite, models: added_heads.tip_adapter(
    suite, added_heads.frozen(suite)
  ),
  'lp': lambda suite, models: added_heads.linear_probe(
    suite, added_heads.frozen(suite)
  ),
  'anisotropic_tip': lambda suite, models: added_heads.tip_adapter(
    suite, coefs(suite, models, 'leaf')
  ),
  'anisotropic_lp': lambda suite, models: added_heads.linear_probe(
    suite, coefs(suite, models, 'leaf')
  ),
  'probe': lambda suite, models: few_label_training.probe(suite),
  'lora': lambda suite, models: lora(suite, coefs(suite, models, 'leaf').size),
  'lora_partition': lambda suite, models: lora(
    suite, coefs(suite, models, _cells(suite)).size
  ),
  'full': lambda suite, models: few_label_training.full(suite),
}


def methods(
  suite: suites.Suite, models: task_vectors.Models, names: Sequence[str]
) -> dict[str, Trained]:
  """Returns the parameterisations of the setting ``few_shot`` by method."""
  return {name: METHODS[name](suite, models) for name in names}


def partitions(
  suite: suites.Suite, models: task_vectors.Models
) -> dict[str, Trained]:
  """Returns the parameterisations of the setting ``partition`` by method."""
  config = suite.config.partition
  found = {}
  for cells in config.cells:
    by = 'entry' if cells == 'full' else ('random', cells)
    found[f'x{cells}'] = coefs(suite, models, by)
    if 'lora' in config.methods and cells != 'full':
      budget = found[f'x{cells}'].size
      found[f'lora_x{cells}'] = lora(suite, budget)
  references = [name for name in config.methods if name != 'lora']
  return {**found, **methods(suite, models, references)}


def run(
  suite: suites.Suite,
  models: task_vectors.Models,
  setting: str,
  name: str,
  trained: Trained,
) -> dict[str, Any]:
  """Trains and measures one method for every seed, target and number of shots.

  Args:
    suite: tasks and model.
    models: bases, heads and vectors.
    setting: ``'few_shot'`` or ``'partition'``.
    name: of the method.
    trained: its parameterisation.

  Returns:
    ``test``, ``[A, S, T]``; ``shots``, ``[A]``; ``trained``, the number of
    parameters; ``note``.
  """
  config = suite.config[setting]
  runs = few_shot_runs.draw(suite, config.shots)
  split = suite.tasks.train
  shared = jax.tree.map(jnp.asarray, (models, runs, tuple(split)))
  keys = jax.random.split(jax.random.key(6), len(runs.seeds))
  starts = jax.jit(functools.partial(_starts, trained))(shared, keys)

  def loss(
    bound: Any, params: types.Tree, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    apply_fn = functools.partial(
      few_label_training.logits, trained, suite.encode, bound
    )
    return scale.supervised(apply_fn)(params, batch, key)

  found = starts
  if jax.tree.leaves(starts):
    found = side_by_side.advance_all(
      name,
      loss,
      starts,
      keys,
      shared,
      few_shot_runs.pick,
      steps=config.steps,
      batch_size=config.batch_size,
      rate=trained.rate,
      at_once=suite.config.at_once,
    )
  if trained.finish is not None:
    finish = functools.partial(_finish, suite, trained)
    found = jax.jit(finish)(shared, found)
  measure = jax.jit(functools.partial(_accuracies, suite, trained))
  test = jax.tree.map(jnp.asarray, tuple(suite.tasks.test))
  shape = (len(config.shots), suite.config.seeds, len(suite.tasks.names))
  accuracy = np.asarray(measure((models, runs, test), found), np.float64)
  return {
    'test': accuracy.reshape(shape).tolist(),
    'shots': list(config.shots),
    'trained': trained.size,
    'note': trained.note,
  }


def _starts(trained: Trained, shared: Any, keys: types.PRNGKey) -> types.Tree:
  """Returns the initial parameters of every run, ``[R, ...]``."""

  def start(operands: Any) -> types.Tree:
    run, key = operands
    return trained.start(few_shot_runs.with_shots(shared, run), key)

  return jax.lax.map(start, (jnp.arange(len(keys)), keys))


def _finish(
  suite: suites.Suite, trained: Trained, shared: Any, found: types.Tree
) -> types.Tree:
  """Returns the parameters of every run after ``trained.finish``."""

  def finish(operands: Any) -> types.Tree:
    run, params = operands
    assert trained.finish is not None
    return trained.finish(
      suite.encode, few_shot_runs.with_shots(shared, run), params
    )

  index = jnp.arange(len(shared[1].seeds))
  return jax.lax.map(finish, (index, found), batch_size=suite.config.at_once)


def _accuracies(
  suite: suites.Suite,
  trained: Trained,
  shared: Any,
  found: types.Tree,
) -> types.Array:
  """Returns the test accuracy of each run, ``[R]``."""
  models, runs, (x, y) = shared

  def one(operands: Any) -> types.Array:
    run, params = operands
    t = runs.targets[run]
    classify = functools.partial(
      few_label_training.logits,
      trained,
      suite.encode,
      few_shot_runs.bind(models, runs, run),
    )
    return train.evaluate(
      classify,
      params,
      (x[t], y[t]),
      batch_size=suite.config.evaluation.batch_size,
    ).accuracy

  index = jnp.arange(len(runs.seeds))
  return jax.lax.map(one, (index, found), batch_size=suite.config.at_once)
