"""A target task from a few labelled images and the other tasks' vectors.

Every method is trained on the same images in the same batches for the same
number of steps. No validation image is used: the last step is evaluated.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._scale_task_vectors import few_label_training, task_vectors
from experiments._shared import side_by_side, suites
from wsl import scale, train, types

REFERENCES = ('lora', 'probe', 'full')  # of the setting partition

Trained = few_label_training.Trained
coefs, lora = few_label_training.coefs, few_label_training.lora


class Runs(NamedTuple):
  """R runs: A amounts of images for each of S seeds and T targets.

  Attributes:
    seeds: ``[R]``.
    targets: ``[R]``.
    rows: indices of the target's training images, ``[R, M]``; fewer than M
      images are repeated.
  """

  seeds: types.Array
  targets: types.Array
  rows: types.Array


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
  runs = draw(suite, config.shots)
  split = suite.tasks.train
  shared = jax.tree.map(jnp.asarray, (models, runs, tuple(split)))
  keys = jax.random.split(jax.random.key(6), len(runs.seeds))
  starts = jax.jit(functools.partial(_starts, trained))(shared, keys)

  def loss(
    bound: Any, params: types.Tree, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    encoder, head = trained.build(bound, params)
    encode = jax.tree_util.Partial(suite.encode)
    apply_fn = jax.tree_util.Partial(task_vectors.logits, encode, head)
    return scale.supervised(apply_fn)(encoder, batch, key)

  found = side_by_side.advance_all(
    name,
    loss,
    starts,
    keys,
    shared,
    pick,
    steps=config.steps,
    batch_size=config.batch_size,
    rate=trained.rate,
    at_once=suite.config.at_once,
  )
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


def draw(suite: suites.Suite, shots: Sequence[int]) -> Runs:
  """Draws the images of every run, none of which the base was trained on.

  For each seed and target, the sets of images are nested.
  """
  used = suite.config.base.examples
  labels = suite.tasks.train.y[:, used:]
  most = max(shots) * len(np.unique(labels[0]))
  keys = suites.keys(suite, 7)
  index, rows = [], []
  for k in shots:
    for s in range(suite.config.seeds):
      for t in range(len(labels)):
        key = jax.random.fold_in(keys[s], t)
        chosen = used + scale.shots(labels[t], per_class=k, key=key)
        index.append((s, t))
        rows.append(np.resize(chosen, most))
  seeds, targets = np.asarray(index, np.int32).T
  return Runs(
    jnp.asarray(seeds), jnp.asarray(targets), jnp.asarray(rows, np.int32)
  )


def bind(
  models: task_vectors.Models, runs: Runs, run: types.Array
) -> dict[str, types.Tree]:
  """Returns base, head and the other tasks' vectors of one run."""
  s, t = runs.seeds[run], runs.targets[run]
  count = jax.tree.leaves(models.heads)[0].shape[1]
  # 0 .. count - 1 without t, of static length.
  others = jnp.arange(count - 1, dtype=t.dtype)
  others = others + (others >= t).astype(t.dtype)
  return {
    'base': side_by_side.pick(models.base, s),
    'head': side_by_side.pick(models.heads, s, t),
    'stack': jax.tree.map(lambda x: x[s][others], models.stack),
  }


def pick(shared: Any, run: types.Array) -> tuple[Any, Any]:
  """Returns base, head and vectors of one run, and its (images, labels)."""
  models, runs, (x, y) = shared
  t, rows = runs.targets[run], runs.rows[run]
  return bind(models, runs, run), (x[t][rows], y[t][rows])


def _starts(trained: Trained, shared: Any, keys: types.PRNGKey) -> types.Tree:
  """Returns the initial parameters of every run, ``[R, ...]``."""

  def start(operands: Any) -> types.Tree:
    run, key = operands
    models, runs, _ = shared
    return trained.start(bind(models, runs, run), key)

  return jax.lax.map(start, (jnp.arange(len(keys)), keys))


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
    encoder, head = trained.build(bind(models, runs, run), params)
    t = runs.targets[run]

    def classify(encoder: types.Params, images: types.Array) -> types.Array:
      return suite.classify({'encoder': encoder, 'head': head}, images)

    return train.evaluate(
      classify,
      encoder,
      (x[t], y[t]),
      batch_size=suite.config.evaluation.batch_size,
    ).accuracy

  index = jnp.arange(len(runs.seeds))
  return jax.lax.map(one, (index, found), batch_size=suite.config.at_once)
