"""Merges by singular values and vectors on the matrices of ViT-B/32, T = 8."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.bench._gpu import report
from wsl import merge

T, LAYERS, WIDTH = 8, 12, 768
METHODS = {'tsv': 1.5, 'iso_c': 0.4, 'iso_cts': 2.5}  # seconds
ERROR = 1e-4


def run(lines: report.Report, limit: float) -> None:
  del limit
  layers, width = (1, 16) if lines.small else (LAYERS, WIDTH)
  deltas = _draw(layers, width)
  lines.line('matrices', len(deltas))
  names = ('0/query', '0/up', '0/down')
  found = {}
  for name, at_most in list(METHODS.items())[: 1 if lines.small else None]:
    call = functools.partial(getattr(merge, name), deltas)
    first, median = report.seconds(call, rounds=3)
    note = f'  first call {first:.1f} s'
    lines.line(f'{name}, eager', median, 's', at_most=at_most, note=note)
    merged = call()
    found[name] = {leaf: np.asarray(merged[leaf]) for leaf in names}
  # After all times: decompositions in float64 on the CPU take the longest.
  few = {leaf: deltas[leaf] for leaf in names}
  for name, merged in found.items():
    for leaf, error in _errors(getattr(merge, name), few, merged).items():
      lines.line(f'{name}, error of {leaf}', error, at_most=ERROR)


def _errors(method: Any, deltas: Any, found: Any) -> dict[str, float]:
  """Returns the relative errors against float64 on the CPU, by leaf."""
  with jax.enable_x64(True), jax.default_device(jax.devices('cpu')[0]):
    wide = {
      n: jnp.asarray(np.asarray(x), np.float64) for n, x in deltas.items()
    }
    exact = jax.tree.map(np.asarray, method(wide))
  norm = lambda x: math.sqrt(float(np.square(np.asarray(x, np.float64)).sum()))
  return {n: norm(found[n] - x) / norm(x) for n, x in exact.items()}


def shapes(layers: int, width: int) -> dict[str, tuple[int, int]]:
  """Returns the shapes of the matrices by name, six of each layer."""
  layer = dict.fromkeys(('query', 'key', 'value', 'out'), (width, width))
  layer |= {'up': (width, 4 * width), 'down': (4 * width, width)}
  return {f'{i}/{n}': s for i in range(layers) for n, s in layer.items()}


def _draw(layers: int, width: int) -> Any:
  """Returns task vectors: a decaying spectrum of their own, and noise."""
  rank = width // 4
  decay = jnp.exp(-jnp.arange(rank) / (rank / 6))
  found = {}
  for i, (name, (m, n)) in enumerate(shapes(layers, width).items()):
    keys = jax.random.split(jax.random.key(i), 3)
    left = jax.random.normal(keys[0], (T, m, rank)) * decay
    right = jax.random.normal(keys[1], (T, n, rank))
    product = jnp.einsum('tmr,tnr->tmn', left, right, precision='highest')
    noise = 0.1 * jax.random.normal(keys[2], product.shape)
    found[name] = product + noise
  return jax.block_until_ready(found)
