"""Measures the memory of learning coefficients: one JSON line each.

  python tests/bench/scale.py --models=21 --width=768 --depth=12

The defaults are a ViT-B/32-sized encoder (88 million parameters) and 21 vectors
in bfloat16; a ``--width`` of 192 has a sixteenth of them. Sizes are in models
in float32.

``step``: one compiled training step in memory. ``peak`` counts arguments,
results and temporaries; ``activations`` the temporaries of an ordinary gradient
of the same model that are not its gradient; ``allowed`` is the bank, three
models and the activations. ``rise`` is what the process grew by when it ran.

``out of core``: for several T, each in a process of its own, with vectors read
on demand: ``live`` is the maximal size of all arrays when a row is read, the
base included; ``temporaries`` those of the gradient's program, independent of
T; and ``process`` the peak memory of the process, compilation included.
``difference`` is the largest difference of the coefficients after 20 steps from
those learned in memory, on a small model.
"""

import functools
import json
import resource
import subprocess
import sys
import threading
import time
from typing import Any

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np
import optax

from wsl import scale, tree
from wsl.scale._learn import learning_step

_MODELS = flags.DEFINE_integer('models', 21, 'T, the number of task vectors')
_WIDTH = flags.DEFINE_integer('width', 768, 'of a token')
_DEPTH = flags.DEFINE_integer('depth', 12, 'blocks')
_BATCH = flags.DEFINE_integer('batch', 8, 'images')
_BY = flags.DEFINE_string(
  'by', 'leaf', 'granularity of the coefficients: task, leaf, random:20, ...'
)
_ONLY = flags.DEFINE_integer('only', 0, 'measure out of core with this T alone')

_ADAMW = optax.adamw(1e-2)
_IMAGE, _PATCH, _CLASSES = 224, 32, 10


def _shapes(width: int, depth: int) -> dict[str, tuple[int, ...]]:
  """Returns the leaves of CLIP's image encoder, with a head of 10 classes."""
  patches = (_IMAGE // _PATCH) ** 2
  block = {
    'norm_1/scale': (width,),
    'norm_1/bias': (width,),
    'qkv/kernel': (width, 3 * width),
    'qkv/bias': (3 * width,),
    'out/kernel': (width, width),
    'out/bias': (width,),
    'norm_2/scale': (width,),
    'norm_2/bias': (width,),
    'up/kernel': (width, 4 * width),
    'up/bias': (4 * width,),
    'down/kernel': (4 * width, width),
    'down/bias': (width,),
  }
  shapes = {
    'embed/kernel': (3 * _PATCH**2, width),
    'position': (patches, width),
    'norm/scale': (width,),
    'norm/bias': (width,),
    'head/kernel': (width, _CLASSES),
  }
  for i in range(depth):
    shapes |= {f'block_{i}/{name}': shape for name, shape in block.items()}
  return shapes


def _norm(p: Any, name: str, h: Any) -> Any:
  h = h - h.mean(-1, keepdims=True)
  h = h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-5)
  return h * (1 + p[f'{name}/scale']) + p[f'{name}/bias']


def _apply(p: Any, x: Any) -> Any:
  """Maps flattened patches ``[B, patches, 3072]`` to logits."""
  h = x @ p['embed/kernel'] + p['position']
  for i in range(sum(name.endswith('qkv/bias') for name in p)):
    b = f'block_{i}'
    qkv = _norm(p, f'{b}/norm_1', h) @ p[f'{b}/qkv/kernel'] + p[f'{b}/qkv/bias']
    q, k, v = jnp.split(qkv.reshape(*h.shape[:2], -1, 3 * 64), 3, -1)
    mixed = jax.nn.dot_product_attention(q, k, v).reshape(h.shape)
    h = h + mixed @ p[f'{b}/out/kernel'] + p[f'{b}/out/bias']
    up = _norm(p, f'{b}/norm_2', h) @ p[f'{b}/up/kernel'] + p[f'{b}/up/bias']
    h = h + jax.nn.gelu(up) @ p[f'{b}/down/kernel'] + p[f'{b}/down/bias']
  return _norm(p, 'norm', h).mean(1) @ p['head/kernel']


def _leaf(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
  rng = np.random.default_rng([seed, sum(name.encode())])
  spread = np.float32(0.02 if seed == 0 else 0.002)
  # Drawn once and repeated: what is measured does not depend on the values.
  return np.resize(rng.standard_normal(8191, np.float32) * spread, shape)


def _problem(width: int, depth: int) -> tuple[Any, Any, Any]:
  shapes = _shapes(width, depth)
  base = {name: jnp.asarray(_leaf(name, s, 0)) for name, s in shapes.items()}
  rng = np.random.default_rng(1)
  patches = (_IMAGE // _PATCH) ** 2
  size = (_BATCH.value, patches, 3 * _PATCH**2)
  x = jnp.asarray(rng.standard_normal(size, np.float32))
  y = jnp.asarray(rng.integers(0, _CLASSES, _BATCH.value, np.int32))
  return base, shapes, (x, y)


def _resident() -> int:
  """Returns the bytes that the process has in memory now."""
  with open('/proc/self/statm') as f:
    return int(f.read().split()[1]) * resource.getpagesize()


class _Peak:
  """The most that the process has had in memory, while it is entered."""

  def __enter__(self) -> '_Peak':
    self.start = self.most = _resident()
    self._done = threading.Event()
    self._watch = threading.Thread(target=self._look)
    self._watch.start()
    return self

  def _look(self) -> None:
    while not self._done.wait(0.005):
      self.most = max(self.most, _resident())

  def __exit__(self, *error: object) -> None:
    self._done.set()
    self._watch.join()

  rise = property(lambda self: self.most - self.start)


def _print(**row: Any) -> None:
  rounded = {
    k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()
  }
  print(json.dumps(rounded), flush=True)


def _in_memory() -> None:
  """Prints what one step in memory takes."""
  base, shapes, batch = _problem(_WIDTH.value, _DEPTH.value)
  count = sum(x.size for x in base.values())
  unit = 4 * count
  rows = lambda name, shape: np.stack(
    [
      _leaf(name, shape, 1 + t).astype(jnp.bfloat16)
      for t in range(_MODELS.value)
    ]
  )
  stacks = {name: jnp.asarray(rows(name, s)) for name, s in shapes.items()}
  bank = scale.as_bank(base, stacks)
  del stacks
  name, *numbers = _BY.value.split(':')
  by = (name, *map(int, numbers)) if numbers else name
  coefs = scale.init(bank, by=by, depth=r'block_(\d+)/', key=jax.random.key(0))
  state = learning_step.State(coefs, _ADAMW.init(coefs))
  objective = scale.supervised(_apply)
  args = (objective, base, bank, None, state, batch, jax.random.key(0))
  start = time.perf_counter()
  step = learning_step.step.lower(
    *args,
    optimizer=_ADAMW,
    transform=scale.identity,
    project=scale.identity,
  ).compile()
  seconds = time.perf_counter() - start
  plain = (
    jax.jit(jax.value_and_grad(objective))
    .lower(base, batch, jax.random.key(0))
    .compile()
  )
  sizes, alone = step.memory_analysis(), plain.memory_analysis()
  peak = (
    sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    + sizes.temp_size_in_bytes
  )
  stored = sum(x.nbytes for x in jax.tree.leaves(bank.leaves))
  activations = alone.temp_size_in_bytes
  with _Peak() as measured:
    jax.block_until_ready(step(*args))
  start = time.perf_counter()
  jax.block_until_ready(step(*args))
  once = time.perf_counter() - start
  start = time.perf_counter()
  jax.block_until_ready(plain(base, batch, jax.random.key(0)))
  ordinary = time.perf_counter() - start
  allowed = stored + 3 * unit + activations
  _print(
    what='step',
    models=_MODELS.value,
    parameters=count,
    bank=stored / unit,
    temporaries=sizes.temp_size_in_bytes / unit,
    activations=activations / unit,
    peak=peak / unit,
    allowed=allowed / unit,
    holds=bool(peak <= allowed),
    rise=measured.rise / unit,
    compile_s=seconds,
    step_s=once,
    ordinary_gradient_s=ordinary,
  )


def _lazy(shapes: Any, models: int, live: list[int]) -> list[Any]:
  """Returns models whose leaves are made when they are read.

  Args:
    shapes: of the leaves.
    models: how many.
    live: a list of one number, the maximal size in bytes of all arrays at a
      read; updated in place.
  """

  def stored(name: str, shape: tuple[int, ...], t: int) -> tree.Stored:
    def fetch() -> np.ndarray:
      live[0] = max(live[0], sum(x.nbytes for x in jax.live_arrays()))
      return _leaf(name, shape, 0) + _leaf(name, shape, 1 + t)

    return tree.Stored(fetch, shape, np.dtype(np.float32))

  return [
    {name: stored(name, s, t) for name, s in shapes.items()}
    for t in range(models)
  ]


def _out_of_core(models: int) -> None:
  """Prints what two streamed steps take."""
  base, shapes, batch = _problem(_WIDTH.value, _DEPTH.value)
  unit = sum(x.nbytes for x in base.values())
  live = [0]
  bank = scale.bank(base, _lazy(shapes, models, live))
  coefs = scale.init(bank, by='leaf')
  run = functools.partial(
    scale.fit,
    scale.supervised(_apply),
    base,
    bank,
    coefs,
    [batch],
    optimizer=_ADAMW,
    key=jax.random.key(0),
  )
  run(steps=1)  # compiles
  start = time.perf_counter()
  run(steps=2)
  seconds = (time.perf_counter() - start) / 2
  plain = (
    jax.jit(jax.value_and_grad(scale.supervised(_apply)))
    .lower(base, batch, jax.random.key(0))
    .compile()
  )
  _print(
    what='out of core',
    models=models,
    live=live[0] / unit,
    temporaries=plain.memory_analysis().temp_size_in_bytes / unit,
    process=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / unit,
    step_s=seconds,
  )


def _difference() -> None:
  """Prints how far coefficients learned out of core are from the others."""
  base, shapes, batch = _problem(128, 2)
  lazy = _lazy(shapes, _MODELS.value, [0])
  streamed = scale.bank(base, lazy)
  whole = scale.bank(base, [tree.read(model) for model in lazy])
  found = [
    scale.fit(
      scale.supervised(_apply),
      base,
      bank,
      scale.init(bank, by='leaf'),
      [batch],
      optimizer=_ADAMW,
      steps=20,
      key=jax.random.key(0),
    )
    for bank in (whole, streamed)
  ]
  gaps = jax.tree.map(
    lambda x, y: float(jnp.abs(x - y).max()), *(f.coefs for f in found)
  )
  moved = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(found[0].coefs))
  worst = max(jax.tree.leaves(gaps))
  print(
    json.dumps(
      {
        'what': 'difference after 20 steps',
        'difference': worst,
        'largest coefficient': round(moved, 3),
        'holds': worst <= 1e-5,
      }
    ),
    flush=True,
  )


def main(argv: list[str]) -> None:
  """Prints the lines."""
  if _ONLY.value:
    _out_of_core(_ONLY.value)
    return
  _print(
    width=_WIDTH.value,
    depth=_DEPTH.value,
    batch=_BATCH.value,
    by=_BY.value,
    device=jax.devices()[0].device_kind,
    jax=jax.__version__,
  )
  for models in (2, 8, _MODELS.value):
    subprocess.run(
      [sys.executable, *argv, *_flags(), f'--only={models}'], check=True
    )
  _difference()
  _in_memory()


def _flags() -> list[str]:
  return [f'--{f.name}={f.value}' for f in (_WIDTH, _DEPTH, _BATCH, _MODELS)]


if __name__ == '__main__':
  app.run(main)
