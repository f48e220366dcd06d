"""Compares mapped candidates with loops of evaluations: one JSON line each.

  python tests/bench/mesh.py --sizes=8x1x16,8x1x1000,32x2x1000

64 recipes (8 coefficients times 8 densities of TIES) of a ViT, each evaluated
on some images. For each size, width times depth times images:

``loop``: merges called eagerly, then the compiled evaluation, recipe by recipe.
``jit``: one compiled function of a recipe, called for each.
``vmap``: the same function, mapped by ``jax.vmap`` under ``jax.jit``.
``map N``: ``mesh.map_candidates`` on N devices (1, and all), with the default
batch and for each of ``--batches``.

Each reports seconds: ``first`` with compilation, then the median of calls that
alternate, and ``processor`` seconds of all threads, which other programs on
the machine affect less. ``gain`` is the median ratio of ``loop`` to it,
``over_jit`` that of ``jit`` to it, and ``processor_gain`` the latter in
processor seconds. On a CPU the devices are virtual and share the cores; set
``--devices`` to their number.
"""

import functools
import json
import os
import time
from typing import Any

from absl import app, flags

_SIZES = flags.DEFINE_list(
  'sizes', ['8x1x16', '8x1x1000', '32x2x1000'], 'width x depth x images'
)
_BATCHES = flags.DEFINE_list('batches', [], 'for each device')
_DEVICES = flags.DEFINE_integer('devices', 8, 'virtual devices of a CPU')
_RECIPES = flags.DEFINE_integer('recipes', 64, 'a square number')
_REPEATS = flags.DEFINE_integer('repeats', 3, 'timed calls of each')
_TASKS = 4


def _problem(width: int, depth: int, count: int) -> tuple[Any, Any]:
  """Returns a base, its task vectors and images; the function of a recipe."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from wsl import deltas, merge, models, train

  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  model = models.ViT(outputs=10, patch=4, width=width, depth=depth)
  images = normal(count, 8, 8, 1)
  base = model.init(jax.random.key(0), images[:1])
  tasks = [
    jax.tree.map(lambda x: x + 0.02 * normal(*x.shape), base)
    for _ in range(_TASKS)
  ]
  data = jnp.asarray(images), jnp.asarray(rng.integers(0, 10, count))
  stack = deltas.stack(base, tasks)

  def evaluate(params: Any) -> Any:
    return train.evaluate(model.apply, params, data, batch_size=250)

  def recipe(c: Any) -> Any:
    merged = merge.ties(stack, density=c['density'])
    return evaluate(deltas.apply(base, merged, coef=c['coef']))

  return recipe, sum(x.size for x in jax.tree.leaves(base))


def _recipes() -> Any:
  """Returns coefficients times densities."""
  import numpy as np

  side = round(_RECIPES.value**0.5)
  coef, density = np.meshgrid(
    np.linspace(0.2, 1, side, dtype=np.float32),
    np.linspace(0.1, 1, side, dtype=np.float32),
  )
  return {'coef': coef.reshape(-1), 'density': density.reshape(-1)}


def _methods(recipe: Any, recipes: Any) -> dict[str, Any]:
  """Returns what is timed, functions that return the losses."""
  import jax
  import numpy as np

  from wsl import mesh

  count = len(recipes['coef'])
  each = [jax.tree.map(lambda x, i=i: x[i], recipes) for i in range(count)]
  compiled, mapped = jax.jit(recipe), jax.jit(jax.vmap(recipe))

  def loop(fn: Any) -> Any:
    return np.asarray([float(fn(c).loss) for c in each])

  found = {
    'loop': lambda: loop(recipe),
    'jit': lambda: loop(compiled),
    'vmap': lambda: np.asarray(mapped(recipes).loss),
  }
  for devices in sorted({1, jax.device_count()}):
    m = mesh.make(devices, 'candidates')
    for batch in (None, *map(int, _BATCHES.value)):
      call = functools.partial(
        mesh.map_candidates, recipe, recipes, mesh=m, batch=batch
      )
      name = f'map {devices}' + (f', batch {batch}' if batch else '')
      found[name] = lambda call=call: call().loss
  return found


def _measure(size: str) -> None:
  """Times every method, in turn, and prints a line for each."""
  import numpy as np

  recipe, parameters = _problem(*map(int, size.split('x')))
  methods = _methods(recipe, _recipes())
  first, losses = {}, {}
  times, processor = ({name: [] for name in methods} for _ in range(2))
  for repeat in range(1 + _REPEATS.value):
    for name, method in methods.items():
      start, cpu = time.perf_counter(), time.process_time()
      losses[name] = method()
      seconds = time.perf_counter() - start
      if repeat:
        times[name].append(seconds)
        processor[name].append(time.process_time() - cpu)
      else:
        first[name] = seconds
  ratio = lambda a, b, of=times: np.median(np.divide(of[a], of[b]))
  for name in methods:
    record = {
      'size': size,
      'parameters': int(parameters),
      'method': name,
      'first_s': first[name],
      'seconds': np.median(times[name]),
      'gain': ratio('loop', name),
      'gain_first': first['loop'] / first[name],
      'over_jit': ratio('jit', name),
      'processor': np.median(processor[name]),
      'processor_gain': ratio('jit', name, processor),
      'difference': np.max(np.abs(losses[name] - losses['jit'])),
    }
    short = lambda x: float(f'{x:.3g}') if isinstance(x, float) else x
    record = {key: short(x) for key, x in record.items()}
    print(json.dumps(record), flush=True)


def main(argv: list[str]) -> None:
  del argv
  devices = f'--xla_force_host_platform_device_count={_DEVICES.value}'
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {devices}'
  for size in _SIZES.value:
    _measure(size)


if __name__ == '__main__':
  app.run(main)
