"""Measures the cost of stitching; prints one JSON line per measurement.

  python tests/bench/stitch.py --widths=192,384 --depth=12

``fit``: all adapters of a pair of vision transformers (the 34 pairs of SN-Net's
windows, or ``--pairs=all``) from images, in seconds and as a ratio to the two
forward passes of the same images, measured alternately in the same process;
``holds`` tests that the ratio is at most 1.3. ``cpu_ratio`` is the ratio of CPU
times, which depends less on the load of the machine. ``features`` are both
forward passes with the values of all positions as outputs, ``sums`` the moments
without the solutions, ``similarity`` the moments that CKA, CCA and residual
need, and ``cpu_similarity`` their ratio. ``products`` is the ratio predicted
for ``fit`` by the number of multiplications.

``routes``: all networks of a family by one program. ``compilations`` counts the
compilations during their runs; ``overhead`` is the time of some routes by that
program over that of the same networks compiled separately.

``memory``: the same fit for several numbers of batches, generated lazily, each
in its own process: ``live`` is the maximal size of all arrays when a batch is
read, ``process`` the peak memory of the process, in MiB.
"""

from collections.abc import Callable, Iterator
import functools
import json
import resource
import subprocess
import sys
import time
from typing import Any

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

from wsl import models, stitch

_WIDTHS = flags.DEFINE_list('widths', ['192', '384'], 'of the two networks')
_DEPTH = flags.DEFINE_integer('depth', 12, 'blocks of each')
_SIDE = flags.DEFINE_integer('side', 112, 'of an image')
_PATCH = flags.DEFINE_integer('patch', 8, 'side of a patch')
_BATCH = flags.DEFINE_integer('batch', 25, 'images')
_BATCHES = flags.DEFINE_integer('batches', 4, 'number of batches')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'rounds; the minimum is reported')
_PAIRS = flags.DEFINE_enum(
  'pairs', 'windows', ['windows', 'all'], 'pairs of positions'
)
_ONLY = flags.DEFINE_integer('only', 0, 'measure memory with this many batches')


def _network(width: int) -> stitch.Segmented:
  model = models.ViT(
    outputs=10,
    patch=_PATCH.value,
    width=width,
    depth=_DEPTH.value,
    heads=max(1, width // 64),
    expansion=4,
    pool='mean',
  )
  x = jnp.zeros((1, _SIDE.value, _SIDE.value, 3))
  params = jax.jit(model.init)(jax.random.key(width), x)['params']
  return stitch.Segmented(*models.segments(model, params))


def _images(count: int) -> Iterator[jax.Array]:
  """Yields batches, generated lazily."""
  shape = (_BATCH.value, _SIDE.value, _SIDE.value, 3)
  for i in range(count):
    rng = np.random.default_rng(i)
    yield jnp.asarray(rng.standard_normal(shape, np.float32))


def _family() -> tuple[stitch.Family, tuple[stitch.Route, ...]]:
  names = ('small', 'large')
  networks = {
    name: _network(int(width)) for name, width in zip(names, _WIDTHS.value)
  }
  routes = stitch.sn_net_routes(dict.fromkeys(names, _DEPTH.value))
  return stitch.Family(networks, {}), routes


def _pairs(routes: tuple[stitch.Route, ...]) -> list[tuple[int, int]] | None:
  """Returns the positions that the routes join, or None for all."""
  if _PAIRS.value == 'all':
    return None
  return [
    (route.pieces[0].stop, route.pieces[1].start)
    for route in routes
    if len(route.pieces) == 2
  ]


def _seconds(fn: Callable[[], Any]) -> float:
  """Returns the wall-clock time of one call."""
  return float(_both_clocks(fn)[0])


def _both_clocks(fn: Callable[[], Any]) -> np.ndarray:
  """Returns wall-clock and CPU seconds of one call."""
  clocks = lambda: np.asarray([time.perf_counter(), time.process_time()])
  start = clocks()
  jax.block_until_ready(fn())
  return clocks() - start


def _print(**row: Any) -> None:
  """Prints a JSON line with rounded numbers."""
  rounded = {
    k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()
  }
  print(json.dumps(rounded), flush=True)


def _fit() -> None:
  """Prints the time of fitting all adapters and of the forward passes."""
  family, routes = _family()
  a, b = family.models.values()
  pairs = _pairs(routes)
  batches = list(_images(_BATCHES.value))
  forward = jax.jit(stitch.apply)
  values = jax.jit(stitch.features)
  over = lambda fn: [[fn(a, x), fn(b, x)] for x in batches]
  moments = functools.partial(stitch.moments, a, b, batches, pairs=pairs)
  tasks = {
    'forward': lambda: over(forward),
    'features': lambda: [jax.block_until_ready(v) for v in over(values)][-1:],
    'sums': lambda: moments(similarity=False),
    'fit': lambda: stitch.fit_pairs(a, b, batches, pairs=pairs),
    'similarity': moments,
  }
  compile_s = {name: _seconds(fn) for name, fn in tasks.items()}
  rounds = [
    [_both_clocks(fn) for fn in tasks.values()] for _ in range(_ROUNDS.value)
  ]
  best, cpu = (
    dict(zip(tasks, column)) for column in np.min(rounds, 0).T.tolist()
  )
  adapters = stitch.fit_pairs(a, b, batches, pairs=pairs)
  ratio = best['fit'] / best['forward']
  tokens = _BATCH.value * _BATCHES.value * (_SIDE.value // _PATCH.value) ** 2
  _print(
    what='fit',
    pairs=len(adapters),
    tokens=tokens,
    **{f'{name}_s': value for name, value in best.items()},
    ratio=ratio,
    cpu_ratio=cpu['fit'] / cpu['forward'],
    cpu_similarity=cpu['similarity'] / cpu['forward'],
    products=_products(a, b, list(adapters), batches[0]),
    holds=ratio <= 1.3,
    ridges=sum(float(adapter.ridge) > 0 for adapter in adapters.values()),
    compile_s=compile_s['fit'] - best['fit'],
  )


def _products(
  a: stitch.Segmented,
  b: stitch.Segmented,
  pairs: list[tuple[int, int]],
  x: jax.Array,
) -> float:
  """Returns 1 + FLOPs of the moments / FLOPs of the networks."""
  costs = stitch.cost(stitch.Family({'a': a, 'b': b}, {}), x)
  forward = sum(
    part.flops
    for name in 'ab'
    for part in (costs.embed[name], *costs.blocks[name], costs.head[name])
  )
  d, m = (costs.shapes[name][0].shape[-1] for name in 'ab')
  rows = costs.shapes['a'][0].size // d
  sources = len({p for p, _ in pairs})
  return 1 + 2 * rows * (sources * d * d + len(pairs) * d * m) / forward


def _routes() -> None:
  """Prints the time of evaluating all routes."""
  family, routes = _family()
  x = next(_images(1))
  a, b = family.models.values()
  pairs = dict.fromkeys(_pairs(routes) or [])
  names = {
    (route.pieces[0].stop, route.pieces[1].start): route.adapters[0]
    for route in routes
    if len(route.pieces) == 2
  }
  fitted = stitch.fit_pairs(a, b, [x], pairs=pairs)
  adapters = {names[pair]: adapter for pair, adapter in fitted.items()}
  family = stitch.Family(family.models, adapters)
  apply_fn, rows = stitch.program(family, routes)
  run = jax.jit(apply_fn)
  rows = [jnp.asarray(row) for row in rows]
  compiled: list[str] = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: compiled.append(event)
  )
  first = _seconds(lambda: run(family, rows[0], x))
  total = _seconds(lambda: [run(family, row, x) for row in rows])
  count = sum(event.endswith('backend_compile_duration') for event in compiled)
  some = range(0, len(routes), max(1, len(routes) // 3))
  alone = jax.jit(stitch.apply)
  ratios = []
  for i in some:
    network = stitch.materialize(family, routes[i])
    jax.block_until_ready(alone(network, x))
    both = (
      functools.partial(run, family, rows[i], x),
      functools.partial(alone, network, x),
    )
    each = [[_seconds(fn) for fn in both] for _ in range(_ROUNDS.value)]
    ratios.append(float(np.divide(*np.min(each, 0))))
  _print(
    what='routes',
    routes=len(routes),
    compilations=count,
    holds=count == 1,
    first_s=first,
    route_s=total / len(routes),
    overhead=float(np.median(ratios)),
  )


def _memory(count: int) -> None:
  """Prints the memory of a fit to a number of batches."""
  family, routes = _family()
  live = [0]

  def watched() -> Iterator[jax.Array]:
    """Yields batches; records the size of all live arrays."""
    for x in _images(count):
      held = sum(array.nbytes for array in jax.live_arrays())
      live[0] = max(live[0], held)
      yield x

  adapters = stitch.fit_pairs(
    *family.models.values(), watched(), pairs=_pairs(routes)
  )
  jax.block_until_ready(adapters)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  _print(
    what='memory',
    batches=count,
    live=live[0] / 2**20,
    process=peak / 2**10,
  )


def main(argv: list[str]) -> None:
  """Prints all measurements."""
  if _ONLY.value:
    _memory(_ONLY.value)
    return
  _print(
    widths=_WIDTHS.value,
    depth=_DEPTH.value,
    tokens=(_SIDE.value // _PATCH.value) ** 2,
    batch=_BATCH.value,
    device=jax.devices()[0].device_kind,
    jax=jax.__version__,
  )
  for count in (_BATCHES.value, 4 * _BATCHES.value):
    subprocess.run(
      [sys.executable, *argv, *_flags(), f'--only={count}'], check=True
    )
  _routes()
  _fit()


def _flags() -> list[str]:
  given = [f'--widths={",".join(_WIDTHS.value)}', f'--pairs={_PAIRS.value}']
  numbers = (_DEPTH, _SIDE, _PATCH, _BATCH, _BATCHES, _ROUNDS)
  return given + [f'--{f.name}={f.value}' for f in numbers]


if __name__ == '__main__':
  app.run(main)
