"""One deep network, trained end to end or assembled from modules.

The first axis of a leaf is R = F S runs, F fractions of the data times S seeds;
it is R K where each of K modules is trained alone.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._assemble import settings
from experiments._shared import side_by_side
from wsl import stitch, train, tree, types

Setting = settings.Setting


class Job(NamedTuple):
  """Training at one budget on several fractions of the data.

  Attributes:
    starts: initial parameters by stage, ``[S, ...]``.
    budget: of compute, relative to the whole training.
    fractions: of the training images, F of them.
  """

  starts: types.Params
  budget: float
  fractions: tuple[float, ...]


def starts(setting: Setting) -> types.Params:
  """Draws the initial parameters of each stage, ``[S, ...]``."""
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


def end_to_end(setting: Setting, job: Job) -> dict[str, Any]:
  """Trains whole networks and measures them.

  Returns:
    ``steps``, ``flops``, and ``found``: the accuracies of the networks.
  """
  steps, stage = settings.plan(setting, job.budget), 'end_to_end'
  start, fractions = _begin(setting, job, stage), job.fractions
  trained = _train(setting, stage, _plain, start, fractions, steps[stage])
  return _report(setting, steps, (stage,), {'network': trained}, fractions)


def incubation(setting: Setting, job: Job) -> dict[str, Any]:
  """Trains a meta model, every module within it, and the assembled network.

  The stages share the budget.

  Returns:
    ``steps``, ``flops``, and ``found``: the accuracies of the meta model, the
    assembled network, and the fine-tuned one.
  """
  steps, count = settings.plan(setting, job.budget), setting.config.modules
  begin, fractions = functools.partial(_begin, setting, job), job.fractions
  meta = _train(
    setting, 'meta', _plain, begin('meta'), fractions, steps['meta']
  )

  # Each of R K jobs trains one module in one slot of one meta model.
  modules = _train(
    setting,
    'modules',
    _in_slot,
    side_by_side.flat(begin('modules')),
    fractions,
    steps['modules'],
    meta,
  )
  join = lambda m: stitch.assemble(stitch.unstack_modules(m))
  assembled = jax.vmap(join)(side_by_side.fold(modules, -1, count))
  tuned = _train(
    setting, 'fine_tuning', _plain, assembled, fractions, steps['fine_tuning']
  )
  stages = ('meta', 'modules', 'fine_tuning')
  models = {'meta': meta, 'assembled': assembled, 'network': tuned}
  return _report(setting, steps, stages, models, fractions)


def _report(
  setting: Setting,
  steps: dict[str, int],
  stages: tuple[str, ...],
  models: dict[str, stitch.Segmented],
  fractions: tuple[float, ...],
) -> dict[str, Any]:
  """Returns steps and FLOPs of the stages, and accuracies of the networks."""
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
        side_by_side.pick(networks, r),
        getattr(setting.images, name),
        batch_size=config.evaluation.batch_size,
      ).accuracy
      for r in range(count * config.seeds)
    ]
    found[name] = np.reshape(accuracies, (count, -1)).tolist()
  return found


def criterion(logits: types.Array, labels: types.Array) -> types.Array:
  """Returns the mean cross-entropy."""
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def network_loss(
  model: stitch.Segmented, batch: Any, key: types.PRNGKey
) -> types.Array:
  """Returns the loss of a whole network."""
  del key
  return criterion(stitch.apply(model, batch[0]), batch[1])


def _plain(
  bound: None, model: stitch.Segmented, batch: Any, key: types.PRNGKey
) -> types.Array:
  """Returns the loss of a network that is trained by itself."""
  del bound
  return network_loss(model, batch, key)


def _in_slot(
  bound: Any, module: stitch.Segmented, batch: Any, key: types.PRNGKey
) -> types.Array:
  """Returns the loss of a module in its slot of the meta model."""
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
      bound = (side_by_side.pick(frames, run // jobs), run % jobs)
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
  """Returns the indices of the training images of each run, ``[R, N]``.

  A fraction is a prefix of the order of its seed, repeated up to N images, so
  that an epoch has the same number of steps for every fraction.
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


def _begin(setting: Setting, job: Job, stage: str) -> stitch.Segmented:
  """Returns initial networks ``[R, ...]``, the same for all fractions."""
  model = setting.target
  tile = lambda x: jnp.tile(x, (len(job.fractions),) + (1,) * (x.ndim - 1))
  params = jax.tree.map(tile, job.starts[stage])
  return stitch.Segmented(params, model.embed, model.block, model.head)
