"""Paths through the blocks, searched with the label of each window."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._depth_surgery import settings
from experiments._run import console
from experiments._shared import side_by_side
from experiments._shared.texts import language
from wsl import stitch, surgery, types

TARGETS = ('label', 'wrong byte')


def measure(setting: settings.Setting, deep: types.Params) -> dict[str, Any]:
  """Searches paths for windows of test text, for all networks ``[S, ...]``.

  Returns:
    By target, for each seed: ``base``, whether the network predicts it for
    each window; ``found``, whether any path does; ``shortest``, the length of
    the shortest such path, 0 if there is none; ``after``, the share of windows
    with one, by the number of simulations.
  """
  config = setting.config
  windows = _windows(setting)
  tokens, targets = language.split(jnp.asarray(windows))
  label = np.asarray(targets)[:, -1]
  # A byte that another window has: bytes as frequent as the labels.
  wrong = _wrong(label)
  results: dict[str, Any] = {name: [] for name in TARGETS}
  with console.progress('paths', 2 * config.seeds) as tick:
    for s in range(config.seeds):
      net = settings.network(setting, side_by_side.pick(deep, s))
      for name, wanted in zip(TARGETS, (label, wrong), strict=True):
        results[name].append(_search(setting, net, tokens, wanted, s))
        tick(f'{np.mean(results[name][-1]["found"]):.2f}')
  return results


def _search(
  setting: settings.Setting,
  net: stitch.Segmented,
  tokens: types.Array,
  wanted: np.ndarray,
  seed: int,
) -> dict[str, Any]:
  """Searches paths that predict the wanted byte after each window."""
  config = setting.config.paths
  evaluate = functools.partial(_correct, net, tokens, jnp.asarray(wanted))
  search = surgery.cola(
    evaluate,
    depth=setting.config.depth,
    samples=len(wanted),
    simulations=config.simulations,
    key=jax.random.key(seed),
    penalty=config.penalty,
    explore=config.explore,
    longest=config.longest,
  )
  correct = [[x for x in found if x.value == 1] for found in search.found]
  first = [
    next((i for i, x in enumerate(found) if x.value == 1), len(found))
    for found in search.found
  ]
  counts = np.arange(config.simulations + 1)
  return {
    'base': search.base.tolist(),
    'found': [bool(found) for found in correct],
    'shortest': [
      min((len(x.path) for x in found), default=0) for found in correct
    ],
    'after': [float(np.mean(np.asarray(first) <= n)) for n in counts],
  }


@jax.jit
def _correct(
  net: stitch.Segmented,
  tokens: types.Array,
  wanted: types.Array,
  paths: types.Array,
) -> types.Array:
  """Returns 1 for each window whose path predicts the wanted byte."""

  def one(path: types.Array, tokens: types.Array) -> types.Array:
    return jnp.argmax(surgery.follow(net, path, tokens[None])[0, -1])

  found = jax.vmap(one)(jnp.asarray(paths), tokens)
  return (found.astype(wanted.dtype) == wanted).astype(jnp.float32)


def _windows(setting: settings.Setting) -> np.ndarray:
  """Returns windows of all domains, evenly spaced in the test text."""
  test = setting.corpus.test
  flat = test.reshape(-1, test.shape[-1])
  count = min(setting.config.paths.windows, len(flat))
  return flat[np.arange(count) * len(flat) // count]


def _wrong(label: np.ndarray) -> np.ndarray:
  """Returns for each window the label of another one, which differs."""
  others = [
    next((y for y in np.roll(label, -i - 1) if y != x), (x + 1) % 256)
    for i, x in enumerate(label)
  ]
  return np.asarray(others, label.dtype)
