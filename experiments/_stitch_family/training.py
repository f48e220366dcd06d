"""Training a family, alone and jointly, at a stated cost.

Runs follow one another: a vmap over them would turn the conditionals of a
route's program into the computation of both sides.
"""

from collections.abc import Callable, Sequence
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments._run import console
from experiments._stitch_family import settings
from wsl import stitch, train, tree, types

BACKWARD = 3  # a step costs three forward passes


def examples(
  setting: settings.Setting, teacher: stitch.Segmented | None
) -> tuple[types.Array, ...]:
  """Returns training images, labels, and what a teacher makes of them.

  Args:
    setting: what every stage needs.
    teacher: a network; none gives the labels again, as probabilities.

  Returns:
    ``[N, h, w, c]``, ``[N]``, ``[N, C]``.
  """
  x, y = setting.images.train
  if teacher is None:
    return x, y, jax.nn.one_hot(y, setting.images.classes, dtype=x.dtype)
  logits = jax.jit(stitch.apply)(teacher, x)
  return x, y, jax.nn.softmax(logits)


def steps_of(setting: settings.Setting, epochs: float) -> int:
  """Returns so many epochs in steps."""
  count = len(setting.images.train[1])
  return max(1, round(epochs * (count // setting.config.training.batch_size)))


def step_cost(setting: settings.Setting, forward: float) -> float:
  """Returns the FLOPs of a step, from those of an image's forward pass."""
  return BACKWARD * setting.config.training.batch_size * forward


def fit(
  setting: settings.Setting,
  label: str,
  losses: Sequence[Callable[..., types.Array]],
  starts: Sequence[types.Params],
  data: Sequence[types.Tree],
  *,
  stage: int,
  steps: int,
  config: ml_collections.ConfigDict,
) -> list[types.Params]:
  """Trains one network or family for each seed.

  Args:
    setting: what every stage needs.
    label: the stage.
    losses: one for each seed.
    starts: one for each seed; the frozen parts of adapters stay as they are.
    data: one for each seed.
    stage: makes their orders differ from those of other stages.
    steps: how many.
    config: ``learning_rate``.

  Returns:
    What was trained.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  optimizer = _optimizer(config.learning_rate, steps)
  trained = []
  keys = settings.keys(setting, stage)
  with console.progress(label, len(starts)) as tick:
    for loss, start, own, key in zip(losses, starts, data, keys, strict=True):
      state, values = train.advance(
        loss,
        train.start(start, optimizer=optimizer),
        own,
        optimizer=optimizer,
        steps=steps,
        batch_size=setting.config.training.batch_size,
        key=key,
      )
      last = float(jnp.mean(values[-20:]))
      if not np.isfinite(last):
        raise FloatingPointError(
          f'{label}: the loss is {last}: take a learning rate below '
          f'{config.learning_rate}'
        )
      trained.append(state.params)
      tick(f'loss {last:.3f}')
  return trained


@functools.lru_cache
def _optimizer(rate: float, steps: int) -> optax.GradientTransformation:
  """Returns one object for equal arguments, so that steps compile once."""
  return optax.chain(
    train.adamw(rate, steps=steps),
    optax.masked(optax.set_to_zero(), _frozen),
  )


def _frozen(params: types.Params) -> types.Tree:
  """Says what an optimizer must not move."""
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
  data: Sequence[types.Tree],
  *,
  stage: int,
  steps: int,
) -> list[stitch.Segmented]:
  """Trains one network of a width and depth for each seed, by itself."""
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
  """Trains the anchors, ``[S, ...]`` each."""
  data = [examples(setting, None)] * setting.config.seeds
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
