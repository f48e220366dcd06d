"""Unlearning of one task by negative coefficients; a control task is kept.

Coefficients are selected on labelled validation images, as in the paper: the
lowest accuracy on the target for which the control keeps a given share of the
base's accuracy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments._run import console
from experiments._scale_task_vectors import merging, predict, task_vectors
from experiments._shared import side_by_side, suites
from wsl import scale, types

METHODS = {'searched': '', 'isotropic': 'task', 'anisotropic': 'leaf'}


class Pair(NamedTuple):
  """A target and the control, of one seed.

  Attributes:
    base: ``[...]``.
    heads: of target and control, ``[2, ...]``.
    bank: the target's vector.
    tasks: indices of target and control.
    objective: the loss to minimise.
  """

  base: types.Params
  heads: types.Params
  bank: scale.Bank
  tasks: tuple[int, int]
  objective: Any


def targets(suite: suites.Suite) -> list[int]:
  """Returns the indices of all tasks except the control."""
  names = suite.tasks.names
  return [
    t for t, name in enumerate(names) if name != suite.config.negation.control
  ]


def run(
  suite: suites.Suite, models: task_vectors.Models, name: str
) -> dict[str, Any]:
  """Negates every target of every seed by one method.

  Returns:
    ``validation`` and ``test``, ``[S, T - 1, 2]``, of target and control;
    ``coefs`` by block, ``[S, T - 1]``; ``trained``, the number of parameters.
  """
  config, names = suite.config.negation, suite.tasks.names
  control = names.index(config.control)
  encode = merging.encoders(suite, models, tangent=False)
  optimizer = merging.optimizer_of(config)
  apply_fns = jax.tree_util.Partial(task_vectors.logits, encode, models.heads)
  found: list[list[dict[str, Any]]] = []
  with console.progress(name, suite.config.seeds * len(targets(suite))) as tick:
    for s in range(suite.config.seeds):
      found.append([])
      for t in targets(suite):
        base, stack = side_by_side.pick((models.base, models.stack), s)
        heads = side_by_side.pick(models.heads, s, np.asarray([t, control]))
        pair = Pair(
          base,
          heads,
          task_vectors.bank(suite, base, stack, [t]),
          (t, control),
          scale.negation(
            side_by_side.pick(apply_fns, s, t),
            side_by_side.pick(apply_fns, s, control),
          ),
        )
        found[s].append(_negate(suite, encode, pair, name, s, optimizer))
        tick(f'target {100 * found[s][-1]["test"][0]:.1f} %')
  keys = list(found[0][0])
  result: dict[str, Any] = {
    key: [[one[key] for one in row] for row in found] for key in keys
  }
  blocks = list(result['coefs'][0][0])
  result['coefs'] = {
    block: [[one[block] for one in row] for row in result['coefs']]
    for block in blocks
  }
  return {
    **result,
    'targets': [names[t] for t in targets(suite)],
    'trained': len(blocks),
  }


def _negate(
  suite: suites.Suite,
  encode: Any,
  pair: Pair,
  name: str,
  seed: int,
  optimizer: Any,
) -> dict[str, Any]:
  """Negates one target of one seed by one method."""

  def measure(coefs: scale.Coefs, part: str) -> np.ndarray:
    split = side_by_side.pick(
      getattr(suite.tasks, part), np.asarray(pair.tasks)
    )
    model = predict.compose(encode, pair.base, pair.heads, pair.bank, coefs)
    size = suite.config.evaluation.batch_size
    return predict.accuracies(model, split, batch_size=size)

  config = suite.config.negation
  start = scale.init(pair.bank, by=METHODS[name] or 'task')
  least = config.floor * measure(start, 'validation')[1]
  if METHODS[name]:
    coefs = _descend(suite, pair, measure, start, least, seed, optimizer)
  else:
    coefs = start
    lowest = np.inf
    for value in config.coefs:
      candidate = scale.init(pair.bank, by='task', value=value)
      target, control = measure(candidate, 'validation')
      if control >= least and target < lowest:
        coefs, lowest = candidate, target
  return {
    'validation': measure(coefs, 'validation').tolist(),
    'test': measure(coefs, 'test').tolist(),
    'coefs': {k: float(x[0]) for k, x in coefs.values.items()},
  }


def _descend(
  suite: suites.Suite,
  pair: Pair,
  measure: Callable[..., np.ndarray],
  coefs: scale.Coefs,
  least: float,
  seed: int,
  optimizer: Any,
) -> scale.Coefs:
  """Learns until the accuracy on the control falls below ``least``."""
  config = suite.config.negation
  split = side_by_side.pick(suite.tasks.validation, np.asarray(pair.tasks))
  feed = merging.batches(split, config.batch_size, seed=seed)
  parts = (((x[0], y[0]), (x[1], y[1])) for x, y in feed)
  best, lowest, state = coefs, np.inf, None
  for _ in range(config.steps // config.every):
    found = scale.fit(
      pair.objective,
      pair.base,
      pair.bank,
      coefs,
      parts,
      optimizer=optimizer,
      steps=config.every,
      key=jax.random.key(seed),
      opt_state=state,
    )
    coefs, state = found.coefs, found.opt_state
    target, control = measure(coefs, 'validation')
    # Stop at the first violation; the best step so far is returned.
    if control < least:
      break
    if target < lowest:
      best, lowest = coefs, target
  return best
