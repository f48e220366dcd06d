"""Averages of the networks of two seeds."""

import functools
from typing import Any

import jax
import numpy as np

from experiments._phases import settings, zoo
from experiments._run import console
from experiments._shared import side_by_side
from wsl import align, landscape, train, types


def measure(setting: settings.Setting, params: types.Params) -> dict[str, Any]:
  """Returns test accuracies of averages of pairs, ``[W, T, P]``.

  The second network is aligned to the first by its weights, or not at all.
  """
  config = setting.config
  pairs = settings.pairs(config)
  classify = functools.partial(zoo.apply, setting)
  one = side_by_side.pick(params, 0, 0, 0)
  symmetry = align.find_symmetry(classify, one, setting.test[0][:1])

  accuracy = settings.compiled(setting, _accuracy)
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


def _accuracy(
  setting: settings.Setting, a: types.Params, b: types.Params
) -> types.Array:
  """Returns the test accuracy of the average of two networks."""
  middle = landscape.interpolate(a, b, 0.5)
  classify = functools.partial(zoo.apply, setting)
  found = train.evaluate(classify, middle, setting.test, batch_size=500)
  return found.accuracy
