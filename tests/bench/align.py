"""Times alignment: one JSON line for each case.

  OPENBLAS_NUM_THREADS=1 python tests/bench/align.py

More threads help on an idle machine only.

``symmetry``: a GPT-2-like model of 48 layers, from shapes alone. ``planted``
and ``unrelated``: random weights of a ResNet-50 with BatchNorm, matched to a
permuted copy and to independent weights. ``vit`` and ``wide``, on request:
independent weights of a ViT-B/16 and of an MLP with three layers of 4096 units.
Seconds in assignments, products and gathers are listed separately; ``cpu_s`` is
the processor time of all threads, which does not depend on other work on the
machine. ``models_of_memory`` is the peak beyond the inputs, in models, to be at
most 2 and ``largest_gains`` (on Linux, and if it is the only case of the run:
memory that an earlier case has freed is used again). ``assignments``: 144
problems of size 64 x 64; ``large``: one of 4096 x 4096, of unrelated units.

  python tests/bench/align.py --cases=wide --rounds=1
"""

from collections.abc import Callable, Iterator
import contextlib
import json
import math
import pathlib
import sys
import time
from typing import Any
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

from tests.bench import resnet50
from wsl import align, models, tree
from wsl.align import _assignment
from wsl.align._match import block_pairs, weight_gains

_CASES = flags.DEFINE_list(
  'cases', ['symmetry', 'planted', 'unrelated', 'assignments'], 'cases to run'
)
_SOLVER = flags.DEFINE_enum(
  'solver', 'assign_scipy', ['assign_scipy', 'assign_lapx'], 'of assignments'
)
_LAYERS = flags.DEFINE_integer('layers', 48, 'of the GPT-2-like model')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'rounds; the best one is printed')

_WIDTH, _HEADS, _VOCABULARY, _CONTEXT = 1600, 25, 50257, 1024


def _gpt_shapes(layers: int) -> Any:
  d, shape = _WIDTH, lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
  norm = {'scale': shape(d), 'bias': shape(d)}
  dense = lambda m, n: {'kernel': shape(m, n), 'bias': shape(n)}
  layer = {
    'norm1': norm,
    'qkv': dense(d, 3 * d),
    'out': dense(d, d),
    'norm2': norm,
    'up': dense(d, 4 * d),
    'down': dense(4 * d, d),
  }
  return {
    'tokens': shape(_VOCABULARY, d),
    'positions': shape(_CONTEXT, d),
    'layers': {f'{i:02}': layer for i in range(layers)},
    'norm': norm,
  }


def _gpt(params: Any, tokens: jax.Array) -> jax.Array:
  length = tokens.shape[1]
  x = params['tokens'][tokens] + params['positions'][:length]
  visible = jnp.tril(jnp.ones((length, length), bool))
  for layer in params['layers'].values():
    qkv = _dense(layer['qkv'], _layer_norm(layer['norm1'], x))
    q, k, v = (
      part.reshape(*part.shape[:2], _HEADS, -1)
      for part in jnp.split(qkv, 3, -1)
    )
    scores = jnp.einsum('bqhd,bkhd->bhqk', q, k) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(visible, scores, -1e9))
    mixed = jnp.einsum('bhqk,bkhd->bqhd', weights, v)
    x += _dense(layer['out'], mixed.reshape(x.shape))
    hidden = jax.nn.gelu(_dense(layer['up'], _layer_norm(layer['norm2'], x)))
    x += _dense(layer['down'], hidden)
  return _layer_norm(params['norm'], x) @ params['tokens'].T


def _dense(layer: Any, x: jax.Array) -> jax.Array:
  return x @ layer['kernel'] + layer['bias']


def _layer_norm(layer: Any, x: jax.Array) -> jax.Array:
  x = x - x.mean(-1, keepdims=True)
  x /= jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
  return x * layer['scale'] + layer['bias']


@contextlib.contextmanager
def _clock(
  seconds: dict[str, float], label: str, module: Any, name: str
) -> Iterator[None]:
  """Records the time spent in one function of a module."""
  function = getattr(module, name)
  with mock.patch.object(module, name, _timed(seconds, label, function)):
    yield


def _timed(
  seconds: dict[str, float], label: str, function: Callable[..., Any]
) -> Callable[..., Any]:
  def call(*args: Any, **options: Any) -> Any:
    start = time.perf_counter()
    result = function(*args, **options)
    seconds[label] += time.perf_counter() - start
    return result

  return call


def _memory(reset: bool = False) -> int:
  """Returns the peak resident bytes since the last reset; 0 if unknown."""
  if not sys.platform.startswith('linux'):
    return 0
  if reset:
    pathlib.Path('/proc/self/clear_refs').write_text('5')
  status = pathlib.Path('/proc/self/status').read_text()
  peak = next(x for x in status.splitlines() if x.startswith('VmHWM'))
  return 1024 * int(peak.split()[1])


def _architecture(case: str) -> tuple[Callable[..., Any], Any, Any]:
  """Returns a function and the shapes of its parameters and of its input."""
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  if case == 'vit':
    model: Any = models.ViT(
      1000, patch=16, width=768, depth=12, heads=12, expansion=4
    )
  elif case == 'wide':
    model = models.MLP(widths=(4096,) * 3, outputs=10, norm=False)
    image = jax.ShapeDtypeStruct((1, 784), jnp.float32)
  else:
    return resnet50.apply, resnet50.shapes(), image
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)
  return model.apply, shapes, image


def _match(case: str) -> dict[str, Any]:
  """Matches the weights of an architecture once and times the parts."""
  apply_fn, shapes, image = _architecture(case)
  symmetry = align.find_symmetry(apply_fn, shapes, image)
  fixed = resnet50.draw(shapes, 0)
  moving = resnet50.draw(shapes, 1)
  inverse = None
  if case == 'planted':
    planted = align.random(symmetry, jax.random.key(1), gauges=('permutation',))
    inverse = align.invert(planted, symmetry=symmetry)
    moved = align.permute(fixed, planted, symmetry=symmetry)
    moving = jax.tree.map(np.asarray, moved)
  seconds = dict.fromkeys(('assignments', 'products', 'gathers'), 0.0)
  visits: list[align.Visit] = []
  with_memory = _assignment.with_memory
  timed = lambda solver: _timed(seconds, 'assignments', with_memory(solver))
  with (
    mock.patch.object(_assignment, 'with_memory', timed),
    _clock(seconds, 'products', weight_gains, 'gains'),
    _clock(seconds, 'gathers', block_pairs, 'permute_moving'),
  ):
    before = _memory(reset=True)
    start, cpu = time.perf_counter(), time.process_time()
    found = align.weight_matching(
      fixed,
      moving,
      symmetry=symmetry,
      key=jax.random.key(0),
      solver=getattr(align, _SOLVER.value),
      progress=visits.append,
    )
    total, cpu = time.perf_counter() - start, time.process_time() - cpu
  model = 4 * sum(tree.sizes(fixed).values())
  largest = 4 * max(group.size for group in symmetry.groups) ** 2
  row: dict[str, Any] = {
    's': round(total, 2),
    'cpu_s': round(cpu, 2),
    **{label: round(value, 2) for label, value in seconds.items()},
    'sweeps': 1 + visits[-1].sweep,
    'visits': len(visits),
    'models_of_memory': round((_memory() - before) / model, 2),
    'largest_gains': round(largest / model, 2),
    'objective': round(visits[-1].objective, 2),
    'groups': len(symmetry.groups),
    'millions': sum(tree.sizes(fixed).values()) / 1e6,
  }
  if inverse is not None:
    row['recovered'] = all(np.array_equal(found[g], inverse[g]) for g in found)
  return row


def _symmetry() -> dict[str, Any]:
  shapes = _gpt_shapes(_LAYERS.value)
  tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  start, cpu = time.perf_counter(), time.process_time()
  symmetry = align.find_symmetry(_gpt, shapes, tokens)
  total, cpu = time.perf_counter() - start, time.process_time() - cpu
  return {
    's': round(total, 2),
    'cpu_s': round(cpu, 2),
    'groups': len(symmetry.groups),
    'log10_order': round(symmetry.log10_order, 1),
    'millions': sum(tree.sizes(shapes).values()) / 1e6,
  }


def _large() -> dict[str, Any]:
  rng = np.random.default_rng(0)
  x, y = rng.standard_normal((2, 4096, 2048), np.float32)
  return _assign(x @ y.T)


def _assignments() -> dict[str, Any]:
  rng = np.random.default_rng(0)
  return _assign(rng.standard_normal((144, 64, 64), np.float32))


def _assign(gains: np.ndarray) -> dict[str, Any]:
  start, cpu = time.perf_counter(), time.process_time()
  getattr(align, _SOLVER.value)(gains)
  total, cpu = time.perf_counter() - start, time.process_time() - cpu
  return {'s': round(total, 4), 'cpu_s': round(cpu, 4)}


def main(argv: list[str]) -> None:
  """Prints one line for each case, the best of several rounds."""
  del argv
  device = jax.devices()[0].device_kind
  print(json.dumps({'device': device, 'jax': jax.__version__}))
  for case in _CASES.value:
    named = {
      'symmetry': _symmetry,
      'assignments': _assignments,
      'large': _large,
    }
    run = named.get(case, lambda case=case: _match(case))
    rows = [run() for _ in range(_ROUNDS.value)]
    best = min(rows, key=lambda row: row['s'])
    print(
      json.dumps({'case': case, 'solver': _SOLVER.value, **best}), flush=True
    )


if __name__ == '__main__':
  app.run(main)
