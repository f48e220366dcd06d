"""A target task from unlabelled test images and the other tasks' vectors."""

from collections.abc import Iterator
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._run import console
from experiments._scale_task_vectors import merging, predict, task_vectors
from experiments._shared import side_by_side, suites
from wsl import scale, types

METHODS = ('entropy', 'ufm')


class Target(NamedTuple):
  """A target task of one seed.

  Attributes:
    objective: the loss.
    apply_fn: maps (encoder, images) to logits of the task.
    base: ``[...]``.
    bank: the vectors of the other tasks.
    x: unlabelled test images.
    seed: of the batches.
  """

  objective: Any
  apply_fn: Any
  base: types.Params
  bank: scale.Bank
  x: np.ndarray
  seed: int


def run(
  suite: suites.Suite, models: task_vectors.Models, name: str
) -> dict[str, Any]:
  """Adapts to every target of every seed by one method, from coefficients 0.

  Returns:
    ``test``, ``[S, T]``; ``trained``, the number of parameters.
  """
  config, count = suite.config.test_time.target, len(suite.tasks.names)
  encode = merging.encoders(suite, models, tangent=False)
  apply_fns = jax.tree_util.Partial(task_vectors.logits, encode, models.heads)
  objectives = (
    scale.entropy(apply_fns) if name == 'entropy' else _ufm(suite, apply_fns)
  )
  optimizer = merging.optimizer_of(config)
  adapt = functools.partial(
    _entropy if name == 'entropy' else _agree, suite, optimizer
  )
  found = np.zeros((suite.config.seeds, count))
  size = 0
  with console.progress(name, found.size) as tick:
    for s, t in np.ndindex(*found.shape):
      base, stack = side_by_side.pick((models.base, models.stack), s)
      others = [i for i in range(count) if i != t]
      bank = task_vectors.bank(suite, base, stack, others)
      objective, apply_fn = side_by_side.pick((objectives, apply_fns), s, t)
      x = suite.tasks.test.x[t]
      target = Target(objective, apply_fn, base, bank, x, s)
      start = scale.init(bank, by='leaf')
      size = sum(x.size for x in start.values.values())
      heads = side_by_side.pick(models.heads, s, slice(t, t + 1))
      model = predict.compose(encode, base, heads, bank, adapt(target, start))
      found[s, t] = predict.accuracies(
        model,
        side_by_side.pick(suite.tasks.test, slice(t, t + 1)),
        batch_size=suite.config.evaluation.batch_size,
      )[0]
      tick(f'test {100 * found[s, t]:.1f} %')
  return {'test': found.tolist(), 'trained': size}


def _ufm(suite: suites.Suite, apply_fns: Any) -> Any:
  """Returns UFM's objective: weak views are noisy, strong ones erased."""
  noise = functools.partial(_noisy, 0.1 * suite.tasks.std)
  return scale.ufm(
    apply_fns,
    weak=noise,
    strong=functools.partial(_erased, 0.3 * suite.tasks.std, suite.tasks.mean),
    exponent=suite.config.test_time.target.exponent,
  )


def _entropy(
  suite: suites.Suite,
  optimizer: Any,
  target: Target,
  coefs: scale.Coefs,
) -> scale.Coefs:
  """Minimises the entropy of the predictions."""
  config, x = suite.config.test_time.target, target.x
  return scale.fit(
    target.objective,
    target.base,
    target.bank,
    coefs,
    (x[rows] for rows in _rows(len(x), config.batch_size, target.seed)),
    optimizer=optimizer,
    steps=config.epochs * (len(x) // config.batch_size),
    key=jax.random.key(target.seed),
  ).coefs


def _agree(
  suite: suites.Suite, optimizer: Any, target: Target, coefs: scale.Coefs
) -> scale.Coefs:
  """Runs the epochs of UFM, each with a new trusted set."""
  config, x = suite.config.test_time.target, target.x
  rng = np.random.RandomState(target.seed)
  feed = _rows(len(x), config.batch_size, target.seed)
  state = None
  for epoch in range(config.epochs):
    logits = _classify(target.apply_fn, target.base, target.bank, coefs, x)
    sure = scale.trusted(np.asarray(logits))
    # The confidence threshold rises from 0.9 to 1 over the epochs.
    threshold = np.float32(0.9 + 0.1 * epoch / max(config.epochs - 1, 1))

    def views(sure: Any = sure, threshold: Any = threshold) -> Iterator[Any]:
      for rows in feed:
        i = rng.randint(len(sure.indices), size=config.batch_size // 3)
        yield scale.Views(
          x[rows], x[sure.indices[i]], sure.labels[i], threshold
        )

    found = scale.fit(
      target.objective,
      target.base,
      target.bank,
      coefs,
      views(),
      optimizer=optimizer,
      steps=len(x) // config.batch_size,
      key=jax.random.key(1000 * target.seed + epoch),
      opt_state=state,
    )
    coefs, state = found.coefs, found.opt_state
  return coefs


@jax.jit
def _classify(
  apply_fn: Any,
  base: types.Params,
  bank: scale.Bank,
  coefs: scale.Coefs,
  x: types.Array,
) -> types.Array:
  """Returns the logits of the composed model."""
  return apply_fn(scale.compose(base, bank, coefs), x)


def _rows(count: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
  """Yields indices of batches endlessly, in a new order for each epoch."""
  rng = np.random.RandomState(seed)
  while True:
    order = rng.permutation(count)
    for first in range(0, count - batch_size + 1, batch_size):
      yield order[first : first + batch_size]


def _noisy(scale: float, key: types.PRNGKey, x: types.Array) -> types.Array:
  """Adds Gaussian noise."""
  x = jnp.asarray(x, jnp.float32)
  return x + scale * jax.random.normal(key, x.shape, jnp.float32)


def _erased(
  scale: float, mean: float, key: types.PRNGKey, x: types.Array
) -> types.Array:
  """Adds noise, and erases a quarter of each image."""
  keys = jax.random.split(key, 3)
  height, width = x.shape[1:3]
  rows = _window(keys[0], len(x), height)[:, :, None, None]
  columns = _window(keys[1], len(x), width)[:, None, :, None]
  return jnp.where(rows & columns, mean, _noisy(scale, keys[2], x))


def _window(key: types.PRNGKey, count: int, size: int) -> types.Array:
  """Draws a window of half the ``size``, as masks ``[count, size]``."""
  first = jax.random.randint(key, (count, 1), 0, size // 2 + 1, np.int32)
  places = jnp.arange(size, dtype=np.int32)[None]
  return (places >= first) & (places < first + size // 2)
