"""Compares a mesh of one device with no mesh: one JSON line for each operation.

  python tests/bench/sharded.py --leaves=24 --side=512

Each operation is called eagerly on task vectors: arrays of one device
(``plain``), and arrays with a ``NamedSharding`` on a mesh of that device
(``sharded``). The calls alternate, in random order within a pair. ``overhead``
is the median of the paired ratios of times minus 1, and ``low`` and ``high``
are its quartiles; it should be at most 0.1. ``noise`` is the same median for
two plain calls. ``processor`` is the overhead in processor seconds of all
threads, which other programs on the machine affect less.
"""

import json
import time
from typing import Any

from absl import app, flags
import jax
import numpy as np

_LEAVES = flags.DEFINE_integer('leaves', 24, 'matrices of the model')
_SIDE = flags.DEFINE_integer('side', 512, 'rows and columns of a matrix')
_TASKS = flags.DEFINE_integer('tasks', 4, 'models')
_PAIRS = flags.DEFINE_integer('pairs', 20, 'timed pairs')


def _operations() -> dict[str, Any]:
  """Returns functions of a base and of stacked task vectors, by kind."""
  from wsl import deltas, merge, tree

  applied = lambda base, x: deltas.apply(base, x, coef=0.3)
  key = jax.random.key(0)
  return {
    'elementwise: apply(sum)': lambda b, x: applied(b, merge.sum(x)),
    'elementwise: dare': lambda b, x: merge.dare(x, rate=0.5, key=key),
    'reduction: norm': lambda b, x: tree.norm(x),
    'reduction: model_stock': lambda b, x: merge.model_stock(x),
    'thresholds: ties': lambda b, x: merge.ties(x, density=0.2),
    'thresholds: breadcrumbs': lambda b, x: merge.breadcrumbs(
      x, density=0.8, outliers=0.1
    ),
    'spectral: iso_c': lambda b, x: merge.iso_c(x),
    'spectral: tsv': lambda b, x: merge.tsv(x),
  }


def _seconds(call: Any) -> np.ndarray:
  """Returns the time of a call and its results, by the clock and the CPU."""
  start = time.perf_counter(), time.process_time()
  jax.block_until_ready(call())
  return np.subtract((time.perf_counter(), time.process_time()), start)


def _ratios(first: Any, second: Any, pairs: int) -> tuple[Any, Any]:
  """Returns the paired ratios of the times of two calls, in random order."""
  rng, found = np.random.default_rng(0), []
  for _ in range(pairs):
    if rng.integers(2):
      a, b = _seconds(first), _seconds(second)
    else:
      b, a = _seconds(second), _seconds(first)
    found.append(b / a - 1)
  clock, processor = np.transpose(found)
  return clock, processor


def main(argv: list[str]) -> None:
  del argv
  from wsl import deltas, mesh

  rng = np.random.default_rng(0)
  shape = _SIDE.value, _SIDE.value
  normal = lambda: {
    f'{i:03}': rng.normal(size=shape).astype(np.float32)
    for i in range(_LEAVES.value)
  }
  base = jax.device_put(normal())
  stack = deltas.stack(base, [normal() for _ in range(_TASKS.value)])
  one = mesh.make('model:1', devices=jax.devices()[:1])
  base_on, stack_on = mesh.shard(base, None, one), mesh.shard(stack, None, one)
  for name, function in _operations().items():
    plain = lambda f=function: f(base, stack)
    sharded = lambda f=function: f(base_on, stack_on)
    for call in (plain, sharded, plain, sharded):
      seconds, _ = _seconds(call)
    pairs = _PAIRS.value if seconds < 1 else max(_PAIRS.value // 4, 1)
    over, processor = _ratios(plain, sharded, pairs)
    low, middle, high = np.quantile(over, [0.25, 0.5, 0.75])
    noise, _ = _ratios(plain, plain, pairs)
    record = {
      'operation': name,
      'milliseconds': round(1000 * seconds, 1),
      'overhead': round(middle, 3),
      'low': round(low, 3),
      'high': round(high, 3),
      'noise': round(np.median(noise), 3),
      'processor': round(np.median(processor), 3),
    }
    print(json.dumps(record), flush=True)


if __name__ == '__main__':
  app.run(main)
