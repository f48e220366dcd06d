"""Training of networks and families at a stated cost.

Seeds are trained one after the other: ``vmap`` over them would compute both
branches of the conditionals in a route's program.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments._shared import side_by_side
from experiments._stitch_family import settings
from wsl import stitch, train, tree, types

BACKWARD = 3  # a step costs three forward passes

# Images and labels of all seeds, and a teacher's probabilities ``[S, N, C]``.
Examples = tuple[types.Array, types.Array, types.Array]


def examples(
  setting: settings.Setting, teachers: Sequence[stitch.Segmented] | None
) -> Examples:
  """Returns training images, labels, and the probabilities of teachers.

  Args:
    setting: config, data and model.
    teachers: a network for each seed; without them the labels, one-hot.

  Returns:
    ``[N, h, w, c]``, ``[N]``, ``[S, N, C]``.
  """
  x, y = setting.images.train
  if teachers is None:
    labels = jax.nn.one_hot(y, setting.images.classes, dtype=x.dtype)
    return x, y, jnp.stack([labels] * setting.config.seeds)
  logits = [jax.jit(stitch.apply)(teacher, x) for teacher in teachers]
  return x, y, jnp.stack([jax.nn.softmax(one) for one in logits])


def steps_of(setting: settings.Setting, epochs: float) -> int:
  """Converts epochs to steps."""
  count = len(setting.images.train[1])
  return max(1, round(epochs * (count // setting.config.training.batch_size)))


def step_cost(setting: settings.Setting, forward: float) -> float:
  """Returns the FLOPs of a step, given those of an image's forward pass."""
  return BACKWARD * setting.config.training.batch_size * forward


def fit(
  setting: settings.Setting,
  label: str,
  losses: Sequence[Callable[..., types.Array]],
  starts: Sequence[types.Params],
  data: Examples,
  *,
  stage: int,
  steps: int,
  config: ml_collections.ConfigDict,
) -> list[types.Params]:
  """Trains one network or family for each seed.

  Args:
    setting: config, data and model.
    label: of the progress line.
    losses: one ``Partial`` for each seed.
    starts: one for each seed; frozen parts of adapters do not change.
    data: from ``examples``.
    stage: of the keys.
    steps: exact number of steps.
    config: ``learning_rate``.

  Returns:
    The trained parameters of each seed.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  x, y, targets = data
  trained = side_by_side.advance_all(
    label,
    _own_loss,
    tree.stack(starts),
    settings.keys(setting, stage),
    (tree.stack(losses), x, y, targets),
    _own,
    steps=steps,
    batch_size=setting.config.training.batch_size,
    rate=config.learning_rate,
    at_once=None,
    optimizer=_optimizer,
    exact=True,
  )
  return [side_by_side.pick(trained, s) for s in range(len(starts))]


def _own(shared: Any, run: types.Array) -> tuple[Any, Examples]:
  """Returns the loss and the examples of a run."""
  losses, x, y, targets = shared
  return side_by_side.pick(losses, run), (x, y, targets[run])


def _own_loss(
  loss: Callable[..., types.Array],
  params: types.Params,
  batch: Examples,
  key: types.PRNGKey,
) -> types.Array:
  """Applies the loss of a run."""
  return loss(params, batch, key)


def _optimizer(rate: float, *, steps: int) -> optax.GradientTransformation:
  """Returns AdamW that leaves the frozen parts of adapters unchanged."""
  return optax.chain(
    train.adamw(rate, steps=steps),
    optax.masked(optax.set_to_zero(), _frozen),
  )


def _frozen(params: types.Params) -> types.Tree:
  """Returns which leaves an optimizer must not change."""
  if not isinstance(params, stitch.Family):
    return jax.tree.map(lambda _: False, params)
  adapters = {n: stitch.trainable(a) for n, a in params.adapters.items()}
  return stitch.Family(
    jax.tree.map(lambda _: False, params.models),
    jax.tree.map(lambda free: not free, adapters),
  )


def networks(
  setting: settings.Setting,
  label: str,
  size: tuple[int, int],
  data: Examples,
  *,
  stage: int,
  steps: int,
) -> list[stitch.Segmented]:
  """Trains one network of a width and depth for each seed."""
  starts = [
    settings.draw(setting, *size, key) for key in settings.keys(setting, stage)
  ]
  loss = stitch.random_route(settings.alone, np.zeros((1, 1), np.int32))
  return fit(
    setting,
    label,
    [loss] * len(starts),
    starts,
    data,
    stage=stage,
    steps=steps,
    config=setting.config.training,
  )


def anchors(setting: settings.Setting) -> dict[str, types.Params]:
  """Trains the anchors; by name, ``[S, ...]``."""
  data = examples(setting, None)
  found = {}
  for i, (name, depth) in enumerate(setting.depths.items()):
    trained = networks(
      setting,
      name,
      (setting.widths[name], depth),
      data,
      stage=i,
      steps=steps_of(setting, setting.config.training.epochs),
    )
    found[name] = tree.stack([model.params for model in trained])
  return found
