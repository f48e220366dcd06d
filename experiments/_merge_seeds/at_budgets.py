"""Merging networks of two tasks at a budget of compute."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._merge_seeds import settings
from experiments._run import console
from experiments._shared import batches, nets_training, side_by_side
from wsl import align, stats, types

ALIGNMENTS = ('naive', 'weight_matching', 'activation_matching')
METHODS = (*ALIGNMENTS, 'pleas', 'pleas_activations')
OUTPUT = 'params/output'


def networks(setting: settings.Setting) -> types.Params:
  """Trains one network for each task and seed, ``[S, 2, ...]``."""

  def own(
    tasks: nets_training.Examples, run: types.Array
  ) -> nets_training.Examples:
    return side_by_side.pick(tasks, run % 2)

  return settings.networks(setting, setting.tasks, 2, 0, own)


def measure(setting: settings.Setting, stack: types.Params) -> dict[str, Any]:
  """Merges the pair of each seed by every method at every budget.

  Args:
    setting: config, data and model.
    stack: networks ``[S, 2, ...]``, one for each task.

  Returns:
    ``own``: accuracies of the networks on their own tasks ``[S, 2]``;
    ``methods``: for each ``own``, accuracies with the head of the task, and
    ``joint``, among the classes of both, ``[S, budgets, 2]``; ``cost``, the
    multiply-adds of each merge, ``[S, budgets]``.
  """
  config = setting.config
  symmetry = settings.symmetry(setting, stack)
  found: dict[str, Any] = {
    name: {'own': [], 'joint': [], 'cost': []} for name in METHODS
  }
  alone = []
  with console.progress('budgets', config.seeds * len(METHODS)) as tick:
    for s in range(config.seeds):
      pair = [side_by_side.pick(stack, s, t) for t in range(2)]
      alone.append(_alone(setting, pair))
      aligned = align_all(setting, symmetry, pair, s)
      for name in METHODS:
        merges = [
          merge(setting, symmetry, pair[0], aligned[_alignment(name)], name, c)
          for c in config.budgets
        ]
        scores = [_score(setting, merged) for merged in merges]
        found[name]['own'].append([score[0] for score in scores])
        found[name]['joint'].append([score[1] for score in scores])
        found[name]['cost'].append([cost(merged) for merged in merges])
        tick(f'{name} {100 * np.mean(scores[0][0]):.1f} % at the first budget')
  return {'own': alone, 'methods': found}


def align_all(
  setting: settings.Setting,
  symmetry: align.Symmetry,
  pair: list[types.Params],
  s: int,
) -> dict[str, types.Params]:
  """Returns the second network, unaligned and aligned to the first."""
  a, b = pair
  weights = align.weight_matching(
    a, b, symmetry=symmetry, key=settings.keys(setting, 1)[s], leaves=_matched
  )
  activations = align.activation_matching(
    a, b, symmetry=symmetry, apply_fn=settings.mlp, batches=_images(setting)
  )
  move = functools.partial(align.permute, b, symmetry=symmetry)
  return dict(zip(ALIGNMENTS, (b, move(weights), move(activations))))


def merge(
  setting: settings.Setting,
  symmetry: align.Symmetry,
  a: types.Params,
  b: types.Params,
  method: str,
  budget: float,
) -> types.Params:
  """Merges two networks partially; the outputs of both remain."""
  outputs = [symmetry.plan(f'{OUTPUT}/bias')[0][0][0].name]
  # Without ``ridge`` matched units are averaged and nothing is refitted: a
  # merge of the same shape, for comparison.
  grams = stats.joint_gram(settings.mlp, [a, b], _images(setting))
  separate = align.widths(
    a, b, symmetry=symmetry, budget=budget, grams=grams, outputs=outputs
  )
  return align.pleas(
    a,
    b,
    symmetry=symmetry,
    separate=separate,
    grams=grams,
    gains=align.unit_gains(a, b, symmetry=symmetry, leaves=_matched),
    outputs=outputs,
    ridge=None if method in ALIGNMENTS else setting.config.ridge,
  ).params


def cost(params: types.Params) -> int:
  """Returns the multiply-adds for one image, without those by zero."""
  kernels = [x for x in jax.tree.leaves(params) if x.ndim == 2]
  return sum(int(jnp.sum(x != 0)) for x in kernels)


def _matched(name: str, shape: tuple[int, ...]) -> bool:
  """Selects all leaves but the heads, whose classes differ between tasks."""
  del shape
  return not name.startswith(OUTPUT)


def _images(setting: settings.Setting) -> list[types.Array]:
  """Returns training images of both tasks, without labels, in batches."""
  config = setting.config.statistics
  x = setting.tasks.train[0][:, : config.examples]
  by_task = [batches.of_images(task, config.batch_size) for task in x]
  return [batch for pair in zip(*by_task) for batch in pair]


def _alone(setting: settings.Setting, pair: list[types.Params]) -> list[float]:
  """Returns the accuracy of each network on its own task."""
  return [
    float(settings.evaluate(setting, params, split).accuracy)
    for params, split in zip(pair, _splits(setting))
  ]


def _splits(setting: settings.Setting) -> list[nets_training.Examples]:
  x, y = setting.tasks.test
  return [(x[t], y[t]) for t in range(2)]


def _score(
  setting: settings.Setting, merged: types.Params
) -> tuple[list[float], list[float]]:
  """Returns accuracies with the head of the task, and among all classes."""
  classes = int(setting.tasks.train[1].max()) + 1
  own, joint = [], []
  for t, (x, y) in enumerate(_splits(setting)):
    logits = jax.jit(settings.mlp)(merged, x)
    mine = logits[:, t * classes : (t + 1) * classes]
    own.append(float(jnp.mean(mine.argmax(1).astype(y.dtype) == y)))
    place = y + t * classes
    joint.append(float(jnp.mean(logits.argmax(1).astype(y.dtype) == place)))
  return own, joint


def _alignment(method: str) -> str:
  """Returns the alignment that a method starts from."""
  refitted = {
    'pleas': 'weight_matching',
    'pleas_activations': 'activation_matching',
  }
  return refitted.get(method, method)
