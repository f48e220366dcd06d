"""One deep network, trained end to end and assembled from modules.

Runs are axes of every leaf: F fractions of the data times S seeds, ``[R, ...]``
with R = F S, and ``[R K, ...]`` where each of K modules is trained alone.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._assemble import settings
from experiments._shared import side_by_side
from wsl import stitch, train, tree, types

Setting = settings.Setting


def starts(setting: Setting) -> types.Params:
  """Draws what training begins from: parameters by stage, ``[S, ...]``."""
  count, draw = setting.config.modules, setting.draw
  wholes, frames, modules = [], [], []
  for key in keys(setting):
    target = draw(key)
    wholes.append(target.params)
    parts = stitch.split(target, count=count)
    modules.append(stitch.stack_modules(parts).params)
    other = draw(jax.random.fold_in(key, 1))
    frames.append(stitch.meta_model(other, count=count).params)
  found = {'end_to_end': wholes, 'meta': frames, 'modules': modules}
  return {name: tree.stack(params) for name, params in found.items()}


def end_to_end(
  setting: Setting,
  starts: types.Params,
  budget: float,
  fractions: tuple[float, ...],
) -> dict[str, Any]:
  """Trains whole networks and measures them.

  Args:
    setting: what every stage needs.
    starts: what to begin from.
    budget: of compute.
    fractions: of the training images, F of them.

  Returns:
    ``steps``, ``flops``, and ``found``: the accuracies of the networks.
  """
  steps = settings.plan(setting, budget)
  trained = _train(
    setting,
    'end_to_end',
    _plain,
    _begin(setting, starts, 'end_to_end', fractions),
    fractions,
    steps['end_to_end'],
  )
  stages = ('end_to_end',)
  return {
    'steps': {name: steps[name] for name in stages},
    'flops': settings.flops(setting, steps, stages),
    'found': {'network': evaluate(setting, trained, len(fractions))},
  }


def incubation(
  setting: Setting,
  starts: types.Params,
  budget: float,
  fractions: tuple[float, ...],
) -> dict[str, Any]:
  """Trains a meta model, every module within it, and the assembled network.

  Args:
    setting: what every stage needs.
    starts: what to begin from.
    budget: of compute, for all stages together.
    fractions: of the training images, F of them.

  Returns:
    ``steps``, ``flops``, and ``found``: the accuracies of the meta model, the
    assembled network, and the fine-tuned one.
  """
  steps, count = settings.plan(setting, budget), setting.config.modules
  begin = functools.partial(_begin, setting, starts, fractions=fractions)
  meta = _train(
    setting, 'meta', _plain, begin('meta'), fractions, steps['meta']
  )

  # Each of R K jobs is one module in one slot of one meta model.
  modules = _train(
    setting,
    'modules',
    _in_slot,
    jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), begin('modules')),
    fractions,
    steps['modules'],
    meta,
  )
  fold = lambda x: x.reshape(-1, count, *x.shape[1:])
  join = lambda m: stitch.assemble(stitch.unstack_modules(m))
  assembled = jax.vmap(join)(jax.tree.map(fold, modules))
  tuned = _train(
    setting, 'fine_tuning', _plain, assembled, fractions, steps['fine_tuning']
  )
  stages = ('meta', 'modules', 'fine_tuning')
  models = {'meta': meta, 'assembled': assembled, 'network': tuned}
  return {
    'steps': {name: steps[name] for name in stages},
    'flops': settings.flops(setting, steps, stages),
    'found': {
      name: evaluate(setting, model, len(fractions))
      for name, model in models.items()
    },
  }


def evaluate(
  setting: Setting, networks: stitch.Segmented, count: int
) -> dict[str, Any]:
  """Returns accuracies of networks ``[R, ...]`` by split, ``[F, S]``."""
  config, found = setting.config, {}
  for name in ('held_out', 'test'):
    accuracies = [
      train.evaluate(
        stitch.apply,
        jax.tree.map(lambda x, r=r: x[r], networks),
        getattr(setting.images, name),
        batch_size=config.evaluation.batch_size,
      ).accuracy
      for r in range(count * config.seeds)
    ]
    found[name] = np.reshape(accuracies, (count, -1)).tolist()
  return found


def criterion(logits: types.Array, labels: types.Array) -> types.Array:
  """The mean cross-entropy."""
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return jnp.mean(losses)


def network_loss(
  model: stitch.Segmented, batch: Any, key: types.PRNGKey
) -> types.Array:
  """The loss of a whole network."""
  del key
  return criterion(stitch.apply(model, batch[0]), batch[1])


def _plain(
  bound: None, model: stitch.Segmented, batch: Any, key: types.PRNGKey
) -> types.Array:
  del bound
  return network_loss(model, batch, key)


def _in_slot(
  bound: Any, module: stitch.Segmented, batch: Any, key: types.PRNGKey
) -> types.Array:
  meta, slot = bound
  loss = stitch.incubation(meta, slot=slot, criterion=criterion)
  return loss(module, batch, key)


def _train(
  setting: Setting,
  stage: str,
  loss: Callable[..., types.Array],
  starts: stitch.Segmented,
  fractions: tuple[float, ...],
  steps: int,
  meta: stitch.Segmented | None = None,
) -> stitch.Segmented:
  """Trains all runs of a stage; with a meta model, K modules in each."""
  config, images = setting.config, setting.images
  jobs = 1 if meta is None else config.modules

  def pick(shared: Any, run: types.Array) -> Any:
    (x, y), rows, frames = shared
    own = rows[run // jobs]
    bound = None
    if frames is not None:
      frame = jax.tree.map(lambda leaf: leaf[run // jobs], frames)
      bound = (frame, run % jobs)
    return bound, (x[own], y[own])

  return side_by_side.advance_all(
    stage,
    loss,
    starts,
    jnp.repeat(jnp.tile(keys(setting), len(fractions)), jobs),
    (images.train, rows(setting, fractions), meta),
    pick,
    steps=steps,
    batch_size=config.batch_size,
    rate=config.learning_rate,
    at_once=setting.config.at_once,
  )


def rows(setting: Setting, fractions: tuple[float, ...]) -> np.ndarray:
  """Returns which images each run sees, ``[R, N]``.

  A fraction is the beginning of an order of its seed, repeated until there are
  N, so that an epoch has as many steps whatever the fraction.
  """
  config, count = setting.config, len(setting.images.train[1])
  found = []
  for fraction in fractions:
    few = max(1, round(fraction * count))
    for s in range(config.seeds):
      order = np.random.RandomState(1000 * config.seed + s).permutation(count)
      found.append(np.resize(order[:few], count))
  return np.stack(found).astype(np.int32)


def keys(setting: Setting) -> types.PRNGKey:
  """Returns a key for each seed, ``[S]``."""
  key = jax.random.key(setting.config.seed)
  return jax.random.split(key, setting.config.seeds)


def _begin(
  setting: Setting,
  starts: types.Params,
  stage: str,
  fractions: tuple[float, ...],
) -> stitch.Segmented:
  """Returns a stage's networks, ``[R, ...]``: those of a seed are the same."""
  model = setting.target
  tile = lambda x: jnp.tile(x, (len(fractions),) + (1,) * (x.ndim - 1))
  params = jax.tree.map(tile, starts[stage])
  return stitch.Segmented(params, model.embed, model.block, model.head)
