"""One model for all tasks: coefficients searched, or learned by gradient.

The setting ``addition`` learns from labelled validation images, ``test_time``
from unlabelled test images. The last step is used, without early stopping.
"""

from collections.abc import Callable, Iterator
import functools
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from experiments._run import console
from experiments._scale_task_vectors import predict, task_vectors
from experiments._shared import side_by_side, suites
from wsl import data, merge, scale, types


class Method(NamedTuple):
  """Parameters and objective of a merge.

  Attributes:
    by: granularity of the coefficients, as in ``scale.init``.
    learns: from ``'labels'``, or from ``'entropy'``; ``''`` if searched.
    vectors: ``'plain'``, ``'trimmed'`` as TIES does, or ``'tangent'``.
  """

  by: str
  learns: str
  vectors: str = 'plain'


METHODS = {
  'addition': {
    'searched': Method('task', ''),
    'isotropic': Method('task', 'labels'),
    'anisotropic': Method('leaf', 'labels'),
    'tangent_searched': Method('task', '', 'tangent'),
    'tangent_anisotropic': Method('leaf', 'labels', 'tangent'),
  },
  'test_time': {
    'adamerging_task': Method('task', 'entropy'),
    'adamerging_leaf': Method('leaf', 'entropy'),
    'adamerging_plus': Method('leaf', 'entropy', 'trimmed'),
  },
}


def run(
  suite: suites.Suite,
  models: task_vectors.Models,
  experts: np.ndarray,
  setting: str,
  name: str,
) -> dict[str, Any]:
  """Finds coefficients for every seed, and measures the merged models.

  Args:
    suite: tasks and model.
    models: base, heads and vectors.
    experts: their validation accuracies, ``[S, T]``.
    setting: ``'addition'`` or ``'test_time'``.
    name: of a method.

  Returns:
    ``validation`` and ``test``, ``[S, T]``; ``disentanglement``, ``[S]``;
    ``coefs`` by block, ``[S, T]``; ``trained``, the number of parameters.
  """
  method, config = METHODS[setting][name], suite.config
  encodes = encoders(suite, models, tangent=method.vectors == 'tangent')
  learn = learner(suite, encodes, models, method) if method.learns else None
  stacks = _vectors(suite, models, method)
  found: list[dict[str, Any]] = []
  with console.progress(name, config.seeds) as tick:
    for s in range(config.seeds):
      encode, base, heads, stack = side_by_side.pick(
        (encodes, models.base, models.heads, stacks), s
      )
      bank = task_vectors.bank(suite, base, stack)
      compose = functools.partial(predict.compose, encode, base, heads, bank)
      measure = functools.partial(_measure, suite, compose)
      if learn:
        coefs = learn(s, base, bank)
      else:
        scores = predict.searched(suite, compose, bank, config[setting].coefs)
        best = np.mean(scores / np.maximum(experts[s], 1e-9), 1).argmax()
        value = config[setting].coefs[int(best)]
        coefs = scale.init(bank, by='task', value=value)
      found.append(
        {
          'validation': measure(coefs, 'validation').tolist(),
          'test': measure(coefs, 'test').tolist(),
          'disentanglement': _errors(suite, compose(coefs)),
          'coefs': {k: x.tolist() for k, x in coefs.values.items()},
        }
      )
      tick(f'test {100 * np.mean(found[-1]["test"]):.1f} %')
  result: dict[str, Any] = {k: [one[k] for one in found] for k in found[0]}
  result['coefs'] = {
    block: [one[block] for one in result['coefs']]
    for block in result['coefs'][0]
  }
  size = sum(len(rows[0]) for rows in result['coefs'].values())
  return {**result, 'trained': size if method.learns else 1}


def encoders(
  suite: suites.Suite, models: task_vectors.Models, *, tangent: bool
) -> Any:
  """Returns a function of (encoder, images) for all seeds.

  It is a tree: ``side_by_side.pick`` returns the function of one seed, so that
  all seeds share one compiled program.
  """
  if tangent:
    return scale.linear_model(suite.encode, models.base)
  return jax.tree_util.Partial(suite.encode)


def learner(
  suite: suites.Suite,
  encodes: Any,
  models: task_vectors.Models,
  method: Method,
) -> Callable[[int, types.Params, scale.Bank], scale.Coefs]:
  """Returns a function of (seed, base, bank) to coefficients."""
  apply_fn = jax.tree_util.Partial(
    task_vectors.all_logits, encodes, models.heads
  )
  labels = method.learns == 'labels'
  if labels:
    config, split = suite.config.addition, suite.tasks.validation
    steps = config.epochs * (split.y.shape[1] // config.batch_size)
    optimizer, start = optimizer_of(config), 0.0
    objective, project = scale.supervised(apply_fn), scale.identity
  else:
    config, split = suite.config.test_time.adamerging, suite.tasks.test
    steps, start = config.steps, config.start
    optimizer = optax.adam(config.rate)
    objective, project = scale.entropy(apply_fn), scale.box
  keys = suites.keys(suite, 5)

  def learn(s: int, base: types.Params, bank: scale.Bank) -> scale.Coefs:
    return scale.fit(
      side_by_side.pick(objective, s),
      base,
      bank,
      scale.init(bank, by=method.by, value=start),
      batches(split, config.batch_size, seed=s, labels=labels),
      optimizer=optimizer,
      steps=steps,
      key=keys[s],
      project=project,
    ).coefs

  return learn


def optimizer_of(config: ml_collections.ConfigDict) -> Any:
  """Returns the optimizer of the paper, at the rate of the config."""
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(config.rate, weight_decay=config.weight_decay),
  )


def batches(
  split: data.Split, batch_size: int, *, seed: int, labels: bool = True
) -> Iterator[Any]:
  """Yields batches of all tasks, ``[T, B, ...]``, endlessly.

  Args:
    split: images and labels, ``[T, N, ...]``.
    batch_size: B.
    seed: of the orders, one for each task.
    labels: whether to yield labels too.

  Yields:
    (images, labels), or images.
  """
  rng = np.random.RandomState(seed)
  count, size = split.y.shape
  rows = np.arange(count)[:, None]
  while True:
    orders = np.stack([rng.permutation(size) for _ in range(count)])
    for first in range(0, size - batch_size + 1, batch_size):
      index = orders[:, first : first + batch_size]
      x = split.x[rows, index]
      yield (x, split.y[rows, index]) if labels else x


def _vectors(
  suite: suites.Suite, models: task_vectors.Models, method: Method
) -> types.Tree:
  """Returns the task vectors of a method, ``[S, T, ...]``."""
  if method.vectors == 'trimmed':
    density = suite.config.test_time.adamerging.density
    return jax.jit(jax.vmap(functools.partial(_trim, density)))(models.stack)
  return models.tangent if method.vectors == 'tangent' else models.stack


def _trim(density: float, stack: types.Deltas) -> types.Deltas:
  """Returns the entries of each vector that TIES averages."""
  return merge.elect_sign(merge.trim(stack, density=density))


def _measure(
  suite: suites.Suite,
  compose: Callable[[scale.Coefs], predict.Composed],
  coefs: scale.Coefs,
  part: str,
) -> np.ndarray:
  """Returns the accuracy on each task, ``[T]``."""
  split, size = getattr(suite.tasks, part), suite.config.evaluation.batch_size
  return predict.accuracies(compose(coefs), split, batch_size=size)


def _errors(suite: suites.Suite, model: predict.Composed) -> float:
  """Returns the mean disentanglement error over pairs, on test images."""
  size = suite.config.evaluation.batch_size
  found = predict.disentanglement(model, suite.tasks.test, batch_size=size)
  return float(found.sum() / (found.size - len(found)))
