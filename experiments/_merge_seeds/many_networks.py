"""Merging three or more networks, each aligned to the first."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._merge_seeds import settings
from experiments._run import console
from experiments._shared import batches, nets_training, side_by_side
from wsl import align, landscape, tree, types

METHODS = (
  'naive',
  'weight_matching',
  'activation_matching',
  'straight_through',
  'match_many',
)


def networks(setting: settings.Setting) -> types.Params:
  """Trains networks on one task from different seeds, ``[S, N, ...]``."""
  count = setting.config.many.networks
  return settings.networks(setting, setting.whole, count, 2)


def measure(setting: settings.Setting, stack: types.Params) -> dict[str, Any]:
  """Aligns all networks of a seed to the first, by every method, and merges.

  Args:
    setting: config, data and model.
    stack: networks ``[S, N, ...]``.

  Returns:
    ``own``: test accuracies of the networks ``[S, N]``; ``methods``: for each
    ``merged``, the accuracy of the mean of the first 2, 3, ... networks ``[S,
    N - 1]``; ``to_first`` and ``others``, between the first and another and
    between two others, the mean barrier in train and test loss and the
    alignment of singular vectors, ``[S, 3]``.
  """
  config = setting.config
  symmetry = settings.symmetry(setting, stack)
  walk = _walker(setting)
  found: dict[str, Any] = {
    name: {'merged': [], 'to_first': [], 'others': []} for name in METHODS
  }
  alone = []
  with console.progress('many', config.seeds * len(METHODS)) as tick:
    for s in range(config.seeds):
      models = [
        side_by_side.pick(stack, s, i) for i in range(config.many.networks)
      ]
      alone.append([_accuracy(setting, model) for model in models])
      for name in METHODS:
        moved = align_all(setting, symmetry, models, name, s)
        scores = [
          _accuracy(setting, _mean(moved[: n + 1]))
          for n in range(1, len(moved))
        ]
        found[name]['merged'].append(scores)
        for key, pairs in _between(moved, walk).items():
          found[name][key].append(np.mean(pairs, 0).tolist())
        tick(f'{name} {100 * scores[-1]:.1f} % of all')
  return {'own': alone, 'methods': found}


def _between(
  moved: list[types.Params],
  walk: Callable[[types.Params, types.Params], list[float]],
) -> dict[str, list[list[float]]]:
  """Returns barriers and alignments of pairs with and without the first."""
  found: dict[str, list[list[float]]] = {'to_first': [], 'others': []}
  for j, b in enumerate(moved):
    for i, a in enumerate(moved[:j]):
      singular = float(landscape.singular_alignment(a, b).mean)
      found['others' if i else 'to_first'].append([*walk(a, b), singular])
  return found


def align_all(
  setting: settings.Setting,
  symmetry: align.Symmetry,
  models: list[types.Params],
  method: str,
  s: int,
) -> list[types.Params]:
  """Returns the networks in the basis of the first."""
  if method == 'naive':
    return models
  key = settings.keys(setting, 3)[s]
  if method == 'match_many':
    found = align.match_many(models, symmetry=symmetry, key=key)
  else:
    keys = jax.random.split(key, len(models))
    found = [
      _match(setting, symmetry, method, models[0], model, keys[i])
      for i, model in enumerate(models[1:])
    ]
    found = [align.identity(symmetry), *found]
  return [
    align.permute(model, permutation, symmetry=symmetry)
    for model, permutation in zip(models, found)
  ]


def _match(
  setting: settings.Setting,
  symmetry: align.Symmetry,
  method: str,
  fixed: types.Params,
  moving: types.Params,
  key: types.PRNGKey,
) -> align.Permutation:
  """Matches two networks by weights, activations or straight-through."""
  if method == 'weight_matching':
    return align.weight_matching(fixed, moving, symmetry=symmetry, key=key)
  if method == 'activation_matching':
    size = setting.config.statistics.batch_size
    images = batches.of_images(setting.whole.train[0], size, whole=True)
    return align.activation_matching(
      fixed, moving, symmetry=symmetry, apply_fn=settings.mlp, batches=images
    )
  # Some training images select the best step, the others are trained on.
  many = setting.config.many
  x, y = setting.whole.train
  held_out = x[: many.held_out], y[: many.held_out]
  match_key, batch_key = jax.random.split(key)
  size = (many.steps, many.batch_size)
  rows = jax.random.randint(batch_key, size, many.held_out, len(y))
  return align.straight_through(
    fixed,
    moving,
    symmetry=symmetry,
    key=match_key,
    loss_fn=_loss,
    batches=((x[i], y[i]) for i in rows),
    held_out=[held_out],
    optimizer=_optimizer(many.learning_rate),
  )


@functools.cache
def _optimizer(rate: float) -> optax.GradientTransformation:
  return optax.sgd(rate, momentum=0.9)


def _loss(params: types.Params, batch: nets_training.Examples) -> types.Array:
  """Returns the mean cross-entropy of a batch."""
  x, y = batch
  logits = settings.mlp(params, x)
  return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def _walker(
  setting: settings.Setting,
) -> Callable[[types.Params, types.Params], list[float]]:
  """Returns a function of two networks: the barriers in both losses."""

  @jax.jit
  def run(splits: Any, a: types.Params, b: types.Params) -> types.Array:
    losses = lambda p: jnp.stack(
      [settings.evaluate(setting, p, split).loss for split in splits]
    )
    found = landscape.barrier(losses, a, b, points=setting.config.many.points)
    return found.above_chord

  splits = (setting.whole.train, setting.whole.test)
  return lambda a, b: run(splits, a, b).tolist()


def _accuracy(setting: settings.Setting, params: types.Params) -> float:
  return float(settings.evaluate(setting, params, setting.whole.test).accuracy)


def _mean(models: list[types.Params]) -> types.Params:
  return jax.tree.map(lambda x: x.mean(0), tree.stack(models))
