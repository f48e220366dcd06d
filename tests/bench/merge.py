"""Times every merging method against the mean: one JSON line each.

  python tests/bench/merge.py --models=8 --millions=25

``ratio`` is the method's best time over that of ``mean``, in rounds over all
methods in one process. Methods on singular vectors are in ``spectral.py``.
``peak`` counts arguments, results and temporaries of the compiled program in
stacks of T models; ``programs`` counts compilations of an eager call on leaves
of one shape.
"""

from collections.abc import Callable
import functools
import json
import time
from typing import Any

from absl import app, flags
import jax
import jax.numpy as jnp

from wsl import merge, scale, types
from wsl.tree._reads import interpreter

_MODELS = flags.DEFINE_integer('models', 8, 'T, the number of task vectors')
_MILLIONS = flags.DEFINE_float('millions', 25.0, 'parameters of one model, 1e6')
_SIDE = flags.DEFINE_integer('side', 1024, 'leaves are side x side matrices')
_ROUNDS = flags.DEFINE_integer('rounds', 7, 'rounds; the best counts')


def _stack(side: int, leaves: int, models: int) -> dict[str, types.Array]:
  """Makes heavy-tailed task vectors whose scale differs between leaves."""
  draw = jax.jit(
    lambda key, i: jax.random.normal(key, (models, side, side)) ** 3 * (1 + i),
    static_argnums=1,
  )
  keys = jax.random.split(jax.random.key(0), leaves)
  deltas = {f'block_{i}/kernel': draw(key, i % 3) for i, key in enumerate(keys)}
  return jax.block_until_ready(deltas)


def _elementwise(deltas: Any) -> dict[str, Callable[[Any], Any]]:
  key = jax.random.key(1)
  models = len(jax.tree.leaves(deltas)[0])
  weights = jnp.arange(1.0, 1.0 + models)
  return {
    'mean': merge.mean,
    'a copy of the stack': lambda d: jax.tree.map(lambda x: x * 2, d),
    'sum': merge.sum,
    'weighted_mean [T]': lambda d: merge.weighted_mean(d, weights),
    'mean_nonzero': merge.mean_nonzero,
    'fisher': lambda d: merge.fisher(d, fishers=d),
    'tall_masks': lambda d: merge.tall_masks(d, threshold=0.4),
    'consensus': lambda d: merge.consensus(d, threshold=0.4, min_tasks=2),
    'elect_sign': merge.elect_sign,
    'by_depth': lambda d: scale.by_depth(
      merge.sum(d), depth=r'block_(\d+)/', start=0.1, end=0.5
    ),
    'trim global': lambda d: merge.trim(d, density=0.2),
    'breadcrumbs global': lambda d: merge.breadcrumbs(
      d, density=0.19, outliers=0.01
    ),
    'ties global': lambda d: merge.ties(d, density=0.2),
    'ties leaf': lambda d: merge.ties(d, density=0.2, scope='leaf'),
    'dare': lambda d: merge.dare(d, rate=0.5, key=key),
  }


def _time(fns: dict[str, Callable[[], Any]]) -> dict[str, float]:
  best = dict.fromkeys(fns, float('inf'))
  for _ in range(_ROUNDS.value):
    for name, fn in fns.items():
      start = time.perf_counter()
      jax.block_until_ready(fn())
      best[name] = min(best[name], time.perf_counter() - start)
  return best


def _report(
  fns: dict[str, Callable[[Any], Any]], deltas: Any, unit: str
) -> None:
  stack = sum(x.nbytes for x in jax.tree.leaves(deltas))
  compiled, first = {}, {}
  for name, fn in fns.items():
    start = time.perf_counter()
    compiled[name] = jax.jit(fn).lower(deltas).compile()
    first[name] = time.perf_counter() - start
  seconds = _time(
    {name: functools.partial(fn, deltas) for name, fn in compiled.items()}
  )
  for name, fn in fns.items():
    memory = compiled[name].memory_analysis()
    peak = (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      + memory.temp_size_in_bytes
    )
    before = interpreter.run._cache_size()
    jax.block_until_ready(fn(deltas))
    row = {
      'method': name,
      'ms': round(1e3 * seconds[name], 1),
      'ratio': round(seconds[name] / seconds[unit], 2),
      'peak': round(peak / stack, 2),
      'compile_s': round(first[name], 2),
      'programs': interpreter.run._cache_size() - before,
    }
    print(json.dumps(row), flush=True)


def main(argv: list[str]) -> None:
  """Prints the table."""
  del argv
  leaves = max(round(_MILLIONS.value * 1e6 / _SIDE.value**2), 1)
  print(
    json.dumps(
      {
        'models': _MODELS.value,
        'leaves': leaves,
        'side': _SIDE.value,
        'device': jax.devices()[0].device_kind,
        'jax': jax.__version__,
      }
    )
  )
  deltas = _stack(_SIDE.value, leaves, _MODELS.value)
  _report(_elementwise(deltas), deltas, 'mean')


if __name__ == '__main__':
  app.run(main)
