"""Curves between seeds, and similarity of their outputs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._phases import settings, zoo
from experiments._run import console
from experiments._shared import nets_training, side_by_side
from wsl import landscape, stats, train, types


def measure(
  setting: settings.Setting, params: types.Params
) -> dict[str, types.Tree]:
  """Trains a Bezier curve between the networks of each pair of seeds.

  All curves of one width are trained side by side.

  Returns:
    ``bends`` of the curves, leaves ``[W, T, P, K, ...]``; ``connectivity``,
    ``barrier`` of the curve and of the straight ``line``, and ``similarity`` of
    the outputs, ``[W, T, P]``.
  """
  config = setting.config
  pairs = settings.pairs(config)
  run = settings.compiled(setting, _all)
  rows: list[dict[str, types.Tree]] = []
  shape = (len(config.rates), len(pairs))
  with console.progress('curves', len(config.widths)) as tick:
    for i, width in enumerate(config.widths):
      ends = ends_of(side_by_side.pick(params, i), pairs)
      keys = side_by_side.keys(config.seed, (1 << 22) + i, shape[0] * shape[1])
      rows.append(run(*ends, keys))
      tick(f'width {width}')
  return side_by_side.fold(
    jax.tree.map(lambda *x: jnp.concatenate(x), *rows),
    len(config.widths),
    *shape,
  )


def ends_of(
  params: types.Params, pairs: np.ndarray
) -> tuple[types.Params, types.Params]:
  """Returns both networks of each rate and pair, ``[T * P, ...]``.

  Args:
    params: of one width, ``[T, S, ...]``.
    pairs: of seeds, ``[P, 2]``.
  """
  first, second = (
    side_by_side.flat(side_by_side.pick(params, slice(None), own))
    for own in pairs.T
  )
  return first, second


def _all(setting: settings.Setting, *operands: Any) -> dict[str, types.Tree]:
  """Trains curves between networks ``[R, ...]``, some side by side."""
  one = functools.partial(_one, setting)
  return jax.lax.map(one, operands, batch_size=setting.config.at_once)


def _one(setting: settings.Setting, operands: Any) -> dict[str, types.Tree]:
  """Trains a curve between two networks, and measures the pair."""
  a, b, key = operands
  config = setting.config.curve
  straight = landscape.curve(a, b, bends=config.bends)
  steps = config.epochs * (len(setting.train[1]) // config.batch_size)
  optimizer = _optimizer(config.learning_rate, steps)

  def loss(
    params: types.Params, batch: nets_training.Examples, key: types.PRNGKey
  ) -> types.Array:
    del key
    return zoo.cross_entropy(setting, params, batch)

  state, _ = train.advance(
    landscape.curve_loss(loss, a, b),
    train.start(straight.bends, optimizer=optimizer),
    setting.train,
    optimizer=optimizer,
    steps=steps,
    batch_size=config.batch_size,
    key=key,
  )
  bent = straight._replace(bends=state.params)
  classify = functools.partial(zoo.apply, setting)
  losses = lambda p: (
    train.evaluate(classify, p, setting.train, batch_size=500).loss
  )
  along, line = (
    landscape.curve_path(losses, curve, points=config.points).values
    for curve in (bent, straight)
  )
  outputs = stats.cross_moments(
    jax.tree_util.Partial(_logits, jax.tree_util.Partial(classify), a),
    jax.tree_util.Partial(_logits, jax.tree_util.Partial(classify), b),
    [setting.test[0]],
  )
  return {
    'bends': bent.bends,
    'connectivity': landscape.connectivity(along),
    'barrier': landscape.heights(along).above_chord,
    'line': landscape.heights(line).above_chord,
    'similarity': _finite(stats.cka(outputs[0, 0], unbiased=False)),
  }


def _finite(x: types.Array) -> types.Array:
  """Returns 0 for the alignment of constant outputs, which is 0 / 0."""
  return jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x))


@functools.cache
def _optimizer(rate: float, steps: int) -> optax.GradientTransformation:
  schedule = optax.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps)
  return optax.sgd(schedule, momentum=0.9)


def _logits(classify: Any, params: types.Params, x: Any) -> list[types.Array]:
  return [classify(params, x)]
