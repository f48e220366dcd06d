"""Zero-shot joins of every encoder to the decoder of every other network."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._relative import settings
from experiments._run import console
from experiments._shared import side_by_side
from wsl import stitch, types

# Raw latents, anchors, maps fitted to the anchors, and a control.
METHODS = ('absolute', 'relative', 'orthogonal', 'affine', 'shuffled')


def measure(
  setting: settings.Setting,
  objective: str,
  replicates: list[list[settings.Member]],
  decoders: types.Params,
) -> dict[str, Any]:
  """Measures every ordered pair of different networks in a replicate.

  Args:
    setting: config, data and model.
    objective: of the decoders.
    replicates: the networks.
    decoders: of relative representations, ``[counts, R, members, ...]``.

  Returns:
    ``own``: each network with its own decoder, ``[R, members]``; ``relative``:
    each with its own relative decoder, ``[R, members, counts]``; ``methods``:
    by name ``[R, pairs, counts]``; ``same_width``: of each pair.
  """
  test = _test(setting, objective)
  score = jax.jit(functools.partial(_score, setting, objective))
  counts = range(len(setting.config.anchors))
  places = range(len(replicates[0]))
  pairs = list(itertools.permutations(places, 2))
  found: dict[str, Any] = {'own': [], 'relative': []}
  methods: dict[str, list[Any]] = {name: [] for name in METHODS}
  with console.progress(f'{objective}, pairs', len(replicates)) as tick:
    for r, group in enumerate(replicates):
      own = [float(score(m.decoder, m.test, test)) for m in group]
      found['own'].append(own)
      joined = functools.partial(_join, setting, replicates, decoders, r)
      found['relative'].append(
        [
          [float(score(*joined('relative', c, i, i), test)) for c in counts]
          for i in places
        ]
      )
      for name, rows in methods.items():
        rows.append(
          [
            [float(score(*joined(name, c, i, j), test)) for c in counts]
            for i, j in pairs
          ]
        )
      tick(f'own {100 * np.mean(own):.1f} %')
  widths = [member.width for member in replicates[0]]
  same = [widths[i] == widths[j] for i, j in pairs]
  return {**found, 'methods': methods, 'same_width': same}


def reconstructions(
  setting: settings.Setting,
  replicates: list[list[settings.Member]],
  decoders: types.Params,
) -> dict[str, types.Array]:
  """Decodes the first network's latents with the last network (replicate 0).

  Args:
    setting: config, data and model.
    replicates: autoencoders.
    decoders: of relative representations.

  Returns:
    By name ``[images, h, w, c]``: test images, their reconstructions by the
    first network, and those by the last network's decoder for each method.
  """
  few = setting.images.test[0][: setting.config.shown]
  decode = settings.decode(setting, 'images')
  first, last = replicates[0][0], len(replicates[0]) - 1
  shown = {'test images': few, 'own': decode(first.decoder, first.test)}
  most = len(setting.config.anchors) - 1
  for name in METHODS:
    shown[name] = decode(
      *_join(setting, replicates, decoders, 0, name, most, 0, last)
    )
  return {name: x[: len(few)].reshape(few.shape) for name, x in shown.items()}


def _join(
  setting: settings.Setting,
  replicates: list[list[settings.Member]],
  decoders: types.Params,
  r: int,
  name: str,
  level: int,
  i: int,
  j: int,
) -> tuple[types.Params, types.Array]:
  """Returns the decoder of network j, and its input from the latents of i."""
  one, other = replicates[r][i], replicates[r][j]
  ids = settings.anchor_ids(setting, r, setting.config.anchors[level])
  if name in ('relative', 'shuffled'):
    if name == 'shuffled':
      ids = np.random.default_rng(r).permutation(ids).tolist()
    decoder = side_by_side.pick(decoders, level, r, j)
    return decoder, settings.represent(setting, one, one.test, ids)
  if name == 'absolute':
    return other.decoder, _fit_width(one.test, other.width)
  adapter = _translate(
    *(member.held_out[jnp.asarray(ids)] for member in (one, other)),
    kind=name,
    **setting.config.translate,
  )
  return other.decoder, stitch.apply_adapter(adapter, one.test)


_translate = jax.jit(
  stitch.translate, static_argnames=('kind', 'scale', 'ridge')
)


def _fit_width(z: types.Array, width: int) -> types.Array:
  """Truncates latents, or pads them with zeros."""
  return jnp.pad(z[:, :width], ((0, 0), (0, max(0, width - z.shape[1]))))


def _test(setting: settings.Setting, objective: str) -> dict[str, types.Array]:
  """Returns the targets of the test images."""
  x, y = setting.images.test
  mean = jnp.mean(setting.images.train[0], 0).reshape(1, -1)
  if objective == 'classes':
    return {'labels': y}
  return {'images': x.reshape(len(x), -1), 'mean': mean}


def _score(
  setting: settings.Setting,
  objective: str,
  decoder: types.Params,
  z: types.Array,
  test: dict[str, types.Array],
) -> types.Array:
  """Returns accuracy, or the share of explained variance; at most 1."""
  outputs = settings.decode(setting, objective)(decoder, z)
  if objective == 'classes':
    guesses = jnp.argmax(outputs, -1).astype(jnp.int32)
    return jnp.mean(jnp.asarray(guesses == test['labels'], jnp.float32))
  # R² = 1 - |x - x'|² / |x - mean|², with the mean of the training images.
  left = jnp.sum(jnp.square(outputs - test['images']))
  return 1 - left / jnp.sum(jnp.square(test['images'] - test['mean']))
