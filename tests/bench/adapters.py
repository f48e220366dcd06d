"""Adapters of a language model of 0.5 billion weights: sums and extraction.

The model has the shapes of Qwen2.5-0.5B, in bfloat16. Each line of JSON is an
operation, with the medians of paired repeats in one process: seconds of the
wall clock and of the processor, those of the reference, and the ratio of the
wall clock. The references are

- of a sum of LoRAs into the model: a copy of its file, read and written;
- of an extraction: the Gram products of its matrices.

Run: python tests/bench/adapters.py --folder=/tmp/adapters --repeats=3
"""

import argparse
from collections.abc import Callable, Mapping
import json
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from wsl import adapters, checkpoint, deltas, merge, tree

D, KV, HIDDEN, TOKENS, LAYERS = 896, 128, 4864, 151_936, 24
LINEAR = {
  'self_attn.q_proj': (D, D),
  'self_attn.k_proj': (KV, D),
  'self_attn.v_proj': (KV, D),
  'self_attn.o_proj': (D, D),
  'mlp.gate_proj': (HIDDEN, D),
  'mlp.up_proj': (HIDDEN, D),
  'mlp.down_proj': (D, HIDDEN),
}


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of the weights, [out, in], by name."""
  found: dict[str, tuple[int, ...]] = {
    'model.embed_tokens.weight': (TOKENS * layers // LAYERS, D),
    'model.norm.weight': (D,),
  }
  for i in range(layers):
    at = f'model.layers.{i}.'
    found |= {f'{at}{k}.weight': shape for k, shape in LINEAR.items()}
    found |= {f'{at}{k}_layernorm.weight': (D,) for k in ('input', 'post')}
  return found


def draw(seed: int, shape: tuple[int, ...]) -> np.ndarray:
  """Draws small entries, a row of blocks at a time."""
  rng = np.random.default_rng(seed)
  x = np.empty(shape, ml_dtypes.bfloat16)
  for part in np.array_split(x, max(x.size >> 22, 1)):
    part[...] = 0.02 * rng.standard_normal(part.shape, np.float32)
  return x


def write(folder: pathlib.Path, layers: int, loras: int, rank: int) -> None:
  """Writes the model and the LoRAs of its linear layers."""
  model = {k: draw(i, s) for i, (k, s) in enumerate(shapes(layers).items())}
  checkpoint.save(folder / 'base.safetensors', model)
  view = tree.Matrix(rows=(1,), columns=(0,))
  for t in range(loras):
    factors = {}
    for name, x in model.items():
      if x.ndim == 2 and 'layers' in name:
        a, b = draw(t, (rank, x.shape[1])), draw(t + 99, (x.shape[0], rank))
        factors[name] = adapters.Factors(a, b, 2.0, x.shape, view)
    checkpoint.save_lora(folder / f'lora_{t}', factors)


def summed(folder: pathlib.Path, loras: int) -> None:
  """Adds the mean of the LoRAs to the model, from files to a file."""
  base = checkpoint.load(folder / 'base.safetensors', lazy=True)
  paths = [folder / f'lora_{t}' for t in range(loras)]
  stack = checkpoint.load_lora(base, paths, form='factors')
  model = deltas.apply(base, merge.mean(stack))
  checkpoint.save(folder / 'out.safetensors', model)


def copied(folder: pathlib.Path) -> None:
  """Reads and writes the model."""
  base = checkpoint.load(folder / 'base.safetensors', lazy=True)
  checkpoint.save(folder / 'out.safetensors', base)


def extracted(delta: Mapping[str, Any], rank: int, key: Any) -> None:
  """Extracts factors of each matrix."""
  adapters.extract(delta, rank=rank, matrices=tree.torch, key=key)


@jax.jit
def _gram(x: jax.Array) -> jax.Array:
  """Returns the Gram matrix of the smaller side, in float32."""
  x = x.astype(jnp.float32)
  x = x if x.shape[0] <= x.shape[1] else x.T
  return tree.matmul(x, x.T)


def grams(delta: Mapping[str, Any]) -> None:
  """Computes the Gram product of each matrix."""
  for x in delta.values():
    if x.ndim == 2:
      _gram(tree.read(x)).block_until_ready()


def measure(run: Callable[[], None]) -> tuple[float, float]:
  """Returns the seconds of the wall clock and of the processor."""
  wall, cpu = time.perf_counter(), time.process_time()
  run()
  return time.perf_counter() - wall, time.process_time() - cpu


def compare(
  name: str, run: Callable[[], None], reference: Callable[[], None], n: int
) -> None:
  """Prints the medians of paired repeats after one run of each."""
  pairs = [(measure(run), measure(reference)) for _ in range(n + 1)][1:]
  middle = lambda i, j: round(statistics.median(p[i][j] for p in pairs), 2)
  ratio = lambda j: round(
    statistics.median(p[0][j] / p[1][j] for p in pairs), 2
  )
  line = {
    'operation': name,
    'wall': middle(0, 0),
    'processor': middle(0, 1),
    'reference wall': middle(1, 0),
    'reference processor': middle(1, 1),
    'ratio of wall': ratio(0),
    'ratio of processor': ratio(1),
  }
  print(json.dumps(line), flush=True)


def main() -> None:
  """Prints a line for each operation."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--layers', type=int, default=LAYERS)
  parser.add_argument('--loras', type=int, default=8)
  parser.add_argument('--rank', type=int, default=16)
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--only', default='')
  args = parser.parse_args()
  folder = args.folder / f'{args.layers}_{args.loras}_{args.rank}'
  if not folder.exists():
    folder.mkdir(parents=True)
    write(folder, args.layers, args.loras, args.rank)
  if args.only in ('', 'sum'):
    add = lambda: summed(folder, args.loras)
    compare('sum of LoRAs', add, lambda: copied(folder), args.repeats)
  delta = checkpoint.load(folder / 'base.safetensors', lazy=True)
  for name, key in (('randomised', jax.random.key(0)), ('exact', None)):
    if args.only in ('', name):
      one = lambda key=key: extracted(delta, args.rank, key)
      compare(f'extraction, {name}', one, lambda: grams(delta), args.repeats)


if __name__ == '__main__':
  main()
