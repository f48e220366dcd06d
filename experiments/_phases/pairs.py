"""Curves between seeds, similarity of their outputs, and their averages."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._phases import settings, zoo
from experiments._run import console
from experiments._shared import nets_training, side_by_side
from wsl import align, landscape, stats, train, types


def of_seeds(config: Any) -> np.ndarray:
  """Returns all pairs of seeds, ``[P, 2]``."""
  return np.array(list(itertools.combinations(range(config.seeds), 2)))


def measure(setting: settings.Setting, params: types.Params) -> dict[str, Any]:
  """Returns connectivity and similarity of pairs of seeds, ``[W, T, P]``.

  A Bezier curve is trained between the two networks of each pair; all curves of
  one width are trained side by side.
  """
  config = setting.config
  pairs = of_seeds(config)
  run = jax.jit(
    lambda *operands: jax.lax.map(
      functools.partial(_one, setting), operands, batch_size=config.at_once
    )
  )
  rows: list[dict[str, types.Array]] = []
  shape = (len(config.rates), len(pairs))
  with console.progress('curves', len(config.widths)) as tick:
    for i, width in enumerate(config.widths):
      ends = [
        side_by_side.flat(side_by_side.pick(params, i, slice(None), own))
        for own in pairs.T
      ]
      keys = side_by_side.keys(config.seed, (1 << 22) + i, shape[0] * shape[1])
      rows.append(run(*ends, keys))
      tick(f'width {width}')
  return {
    name: [row[name].reshape(shape).tolist() for row in rows]
    for name in rows[0]
  }


def _one(setting: settings.Setting, operands: Any) -> dict[str, types.Array]:
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


def average(setting: settings.Setting, params: types.Params) -> dict[str, Any]:
  """Returns test accuracies of averages of pairs, ``[W, T, P]``.

  The second network is aligned to the first by its weights, or not at all.
  """
  config = setting.config
  pairs = of_seeds(config)
  classify = functools.partial(zoo.apply, setting)
  one = side_by_side.pick(params, 0, 0, 0)
  symmetry = align.find_symmetry(classify, one, setting.test[0][:1])

  @jax.jit
  def accuracy(a: types.Params, b: types.Params) -> types.Array:
    middle = landscape.interpolate(a, b, 0.5)
    found = train.evaluate(classify, middle, setting.test, batch_size=500)
    return found.accuracy

  shape = (len(config.widths), len(config.rates), len(pairs))
  found = {'aligned': np.zeros(shape), 'naive': np.zeros(shape)}
  with console.progress('averages', len(config.widths)) as tick:
    for i, width in enumerate(config.widths):
      for t, p in np.ndindex(shape[1:]):
        a, b = (side_by_side.pick(params, i, t, s) for s in pairs[p])
        key = jax.random.fold_in(jax.random.key(config.seed), t)
        found['naive'][i, t, p] = accuracy(a, b)
        match = align.weight_matching(a, b, symmetry=symmetry, key=key)
        moved = align.permute(b, match, symmetry=symmetry)
        found['aligned'][i, t, p] = accuracy(a, moved)
      tick(f'width {width}')
  return {name: z.tolist() for name, z in found.items()}
