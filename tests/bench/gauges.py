"""Times matching over gauges against permutations: one JSON line for each case.

  OPENBLAS_NUM_THREADS=1 python tests/bench/gauges.py

A transformer with RMSNorm and gated layers, whose gains are 1 after
``absorb_norms``: ``planted`` is matched to a copy moved by an element of the
whole group, ``unrelated`` to independent weights. ``cpu_s`` is the processor
time, ``ratio`` that of all gauges over permutations alone, and ``distance`` is
what is left between the models, relative to the norm of the fixed one.
"""

import json
import pathlib
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

from wsl import align

_LAYERS = flags.DEFINE_integer('layers', 12, 'layers')
_WIDTH = flags.DEFINE_integer('width', 768, 'of the residual stream')
_HEADS = flags.DEFINE_integer('heads', 12, 'in each layer')
_CASES = flags.DEFINE_list('cases', ['planted', 'unrelated'], 'cases to run')

_VOCABULARY = 1000


def _norm(x: jax.Array, gain: jax.Array) -> jax.Array:
  return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * gain


def _apply(params: Any, tokens: jax.Array) -> jax.Array:
  x = params['tokens'][tokens]
  for layer in params['layers'].values():
    h = _norm(x, layer['scale_1'])
    q, k, v = (jnp.einsum('td,dhk->htk', h, layer[n]) for n in 'qkv')
    scores = jax.nn.softmax(jnp.einsum('htk,hsk->hts', q, k), -1)
    x = x + jnp.einsum('hts,hsk,hkd->td', scores, v, layer['o'])
    h = _norm(x, layer['scale_2'])
    hidden = jax.nn.silu(h @ layer['gate']) * (h @ layer['up'])
    x = x + hidden @ layer['down']
  return _norm(x, params['scale']) @ params['head']


def _draw(seed: int) -> Any:
  rng, d, heads = np.random.default_rng(seed), _WIDTH.value, _HEADS.value
  normal = lambda *shape: (
    rng.standard_normal(shape, np.float32) * np.float32(d**-0.5)
  )
  gain = lambda: np.exp(0.3 * rng.standard_normal(d, np.float32))

  def layer() -> Any:
    inner = {n: normal(d, heads, d // heads) for n in 'qkv'}
    inner |= {'o': normal(heads, d // heads, d), 'down': normal(4 * d, d)}
    inner |= {'gate': normal(d, 4 * d), 'up': normal(d, 4 * d)}
    return inner | {'scale_1': gain(), 'scale_2': gain()}

  layers = {f'{i:02}': layer() for i in range(_LAYERS.value)}
  outside = {'tokens': normal(_VOCABULARY, d), 'head': normal(d, _VOCABULARY)}
  return {**outside, 'scale': gain(), 'layers': layers}


def _distance(a: Any, b: Any) -> float:
  square = lambda x: float(np.square(np.asarray(x, np.float64)).sum())
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
  gap = sum(square(np.asarray(x, np.float64) - np.asarray(y)) for x, y in pairs)
  return float(np.sqrt(gap / sum(map(square, jax.tree.leaves(a)))))


def _case(case: str) -> dict[str, Any]:
  tokens = jax.ShapeDtypeStruct((16,), jnp.int32)
  given = _draw(1)
  symmetry = align.find_symmetry(_apply, given, tokens)
  ready = align.absorb_norms(given, symmetry=symmetry, leaves='scale')
  symmetry = align.find_symmetry(_apply, given, tokens, ones=ready.gains)
  fixed = ready.params
  if case == 'planted':
    element = align.random(symmetry, jax.random.key(3))
    moving = align.permute(fixed, element, symmetry=symmetry)
  else:
    plain = align.find_symmetry(_apply, given, tokens)
    moving = align.absorb_norms(_draw(2), symmetry=plain, leaves='scale').params
  found: dict[str, Any] = {'case': case, 'before': _distance(fixed, moving)}
  for name, gauges in (
    ('permutations', ('permutation',)),
    ('all gauges', align.GAUGES),
  ):
    start, wall = time.process_time(), time.monotonic()
    element = align.weight_matching(
      fixed, moving, symmetry=symmetry, key=jax.random.key(0), gauges=gauges
    )
    found[name] = {
      'cpu_s': round(time.process_time() - start, 2),
      's': round(time.monotonic() - wall, 2),
    }
    moved = align.permute(moving, element, symmetry=symmetry)
    found[name]['distance'] = _distance(fixed, moved)
  cpu = [found[name]['cpu_s'] for name in ('all gauges', 'permutations')]
  found['ratio'] = round(cpu[0] / cpu[1], 2)
  return found


def main(argv: list[str]) -> None:
  del argv
  for case in _CASES.value:
    print(json.dumps(_case(case)), flush=True)


if __name__ == '__main__':
  app.run(main)
