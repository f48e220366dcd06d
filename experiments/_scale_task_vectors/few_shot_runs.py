"""The runs of the settings with few labels: seeds, targets and images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._scale_task_vectors import task_vectors
from experiments._shared import side_by_side, suites
from wsl import scale, types


class Runs(NamedTuple):
  """R runs: A amounts of images for each of S seeds and T targets.

  Attributes:
    seeds: ``[R]``.
    targets: ``[R]``.
    rows: indices of the target's training images, ``[R, M]``; fewer than M
      images are repeated.
    repeats: M divided by the number of images, ``[R]``.
  """

  seeds: types.Array
  targets: types.Array
  rows: types.Array
  repeats: types.Array


def draw(suite: suites.Suite, shots: Sequence[int]) -> Runs:
  """Draws the images of every run, none of which the base was trained on.

  For each seed and target, the sets of images are nested.
  """
  used = suite.config.base.examples
  labels = suite.tasks.train.y[:, used:]
  most = max(shots) * len(np.unique(labels[0]))
  keys = suites.keys(suite, 7)
  index, rows, repeats = [], [], []
  for k in shots:
    for s in range(suite.config.seeds):
      for t in range(len(labels)):
        key = jax.random.fold_in(keys[s], t)
        chosen = used + scale.shots(labels[t], per_class=k, key=key)
        index.append((s, t))
        rows.append(np.resize(chosen, most))
        repeats.append(most / len(chosen))
  seeds, targets = np.asarray(index, np.int32).T
  return Runs(
    jnp.asarray(seeds),
    jnp.asarray(targets),
    jnp.asarray(rows, np.int32),
    jnp.asarray(repeats, np.float32),
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
    'repeats': runs.repeats[run],
  }


def pick(shared: Any, run: types.Array) -> tuple[Any, Any]:
  """Returns base, head and vectors of one run, and its (images, labels)."""
  models, runs, (x, y) = shared
  t, rows = runs.targets[run], runs.rows[run]
  return bind(models, runs, run), (x[t][rows], y[t][rows])


def with_shots(shared: Any, run: types.Array) -> dict[str, types.Tree]:
  """Returns the models of one run with its images and labels."""
  bound, shots = pick(shared, run)
  return bound | {'shots': shots}
