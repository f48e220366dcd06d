"""What the packs of all experts restore, at all sizes."""

from typing import Any

import jax
import numpy as np

from experiments._compress import packs, settings
from experiments._run import console
from experiments._shared import (
  suite_accuracy,
  suite_training,
  suites,
)
from wsl import types


def bounds(
  suite: suites.Suite, models: suite_training.Models
) -> dict[str, Any]:
  """Returns the test accuracies of base and experts, ``[S, T]``."""
  experts = suite_accuracy.Experts(models.stack)
  found = suite_accuracy.of_all(
    suite, models.base, experts, models.heads, suite.tasks.test, (0.0, 1.0)
  )
  return {'base': found[0].tolist(), 'experts': found[1].tolist()}


def measure(
  setting: settings.Setting,
  codec: str,
  models: suite_training.Models,
  grams: types.Tree,
) -> list[dict[str, Any]]:
  """Measures a codec at all of its sizes.

  Returns:
    For each size ``point``, and by seed and task, ``[S, T]``: ``bits``,
    ``headers``, ``bounds``, the relative ``error`` and the test ``accuracy``.
  """
  points = setting.points[codec]
  rows = []
  with console.progress(codec, len(points)) as tick:
    for point, options in zip(
      points, packs.OPTIONS[codec](setting, models, grams)
    ):
      rows.append({'point': point, **_row(setting, codec, models, options)})
      tick(f'{np.mean(rows[-1]["bits"]):.2f} bits')
  return rows


def _row(
  setting: settings.Setting,
  codec: str,
  models: suite_training.Models,
  options: list[packs.Decoded],
) -> dict[str, Any]:
  """Measures what validation images choose among the options."""
  accuracy = _accuracies(setting, codec, models, options)
  best = np.argmax(accuracy['validation'], 0)[None]
  errors = np.stack([_errors(models.stack, x.stack) for x in options])
  # Scales of one pack are no options of their own: the error is that of the
  # pack as it is.
  chosen = best if len(errors) > 1 else 0 * best
  found = {
    **{k: getattr(options[0], k) for k in ('bits', 'headers', 'bounds')},
    'error': np.take_along_axis(errors, chosen, 0)[0],
    'accuracy': np.take_along_axis(accuracy['test'], best, 0)[0],
  }
  return {k: np.asarray(v).tolist() for k, v in found.items()}


def _accuracies(
  setting: settings.Setting,
  codec: str,
  models: suite_training.Models,
  options: list[packs.Decoded],
) -> dict[str, np.ndarray]:
  """Returns accuracies of all options, or scales of one, ``[K, S, T]``."""
  suite = setting.suite
  coefs = tuple(suite.config.scales) if codec == 'compeft' else (1.0,)
  found = {}
  for name in ('validation', 'test'):
    split = getattr(suite.tasks, name)
    found[name] = np.concatenate([
      suite_accuracy.of_all(
        suite, models.base, suite_accuracy.Experts(option.stack),
        models.heads, split, coefs,
      )
      for option in options
    ])  # fmt: skip
  return found


def _errors(stack: types.Deltas, decoded: types.Deltas) -> np.ndarray:
  """Returns relative errors, ``[S, T]``."""
  square = lambda x: np.square(np.asarray(x, np.float64)).sum(
    tuple(range(2, x.ndim))
  )
  lost = [
    square(np.asarray(x) - np.asarray(y))
    for x, y in zip(jax.tree.leaves(stack), jax.tree.leaves(decoded))
  ]
  return np.sqrt(sum(lost) / sum(map(square, jax.tree.leaves(stack))))
