"""Time and memory of a streamed merge, compared with reading and writing.

A base and its models are written to a scratch folder, merged leaf by leaf and
deleted. Each measurement is a separate process and one line of JSON:

  floor   reads all models into one buffer and writes one model, nothing else
  plan    the output of ``checkpoint.plan`` for the merge, and its time
  stream  ``checkpoint.save(path, deltas.apply(base, merge.METHOD(...)))``

Run: python tests/bench/stream.py --millions=300 --models=3 --method=mean
"""

import argparse
import json
import multiprocessing
import pathlib
import resource
import sys
import tempfile
import time

import jax.numpy as jnp
import numpy as np

from wsl import checkpoint, deltas, merge, tree, types

_WIDTH, _VOCABULARY, _HIDDEN = 1024, 32_000, 2816
_METHODS = {
  'mean': merge.mean,
  'sum': merge.sum,
  'ties': lambda d: merge.ties(d, density=0.2, scope='leaf'),
  'ties_global': lambda d: merge.ties(d, density=0.2),
}


def shapes(millions: float) -> dict[str, tuple[int, ...]]:
  """Returns the leaves of a decoder of about so many million parameters."""
  block = {
    **{f'attention/{x}': (_WIDTH, _WIDTH) for x in 'qkvo'},
    'mlp/gate': (_WIDTH, _HIDDEN),
    'mlp/up': (_WIDTH, _HIDDEN),
    'mlp/down': (_HIDDEN, _WIDTH),
    'norm': (_WIDTH,),
  }
  per_block = sum(int(np.prod(shape)) for shape in block.values())
  rest = millions * 1e6 - _WIDTH * _VOCABULARY
  leaves: dict[str, tuple[int, ...]] = {'embed': (_VOCABULARY, _WIDTH)}
  for i in range(max(1, round(rest / per_block))):
    leaves |= {f'block_{i}/{name}': shape for name, shape in block.items()}
  return leaves


def generate(path: pathlib.Path, millions: float, seed: int) -> None:
  """Writes a model of random bfloat16 weights."""
  rng = np.random.default_rng(seed)
  noise = rng.standard_normal(3_000_017, np.float32).astype(jnp.bfloat16)
  leaf = lambda shape: tree.Stored(
    lambda: np.resize(noise, shape), shape, noise.dtype
  )
  checkpoint.save(
    path, {name: leaf(shape) for name, shape in shapes(millions).items()}
  )


def merged(folder: pathlib.Path, models: int, method: str) -> types.Params:
  """Returns the merge of the models, on demand."""
  base, *others = [
    checkpoint.load(folder / f'{t}.safetensors', lazy=True)
    for t in range(models + 1)
  ]
  return deltas.apply(base, _METHODS[method](deltas.stack(base, others)))


def floor(folder: pathlib.Path, models: int, method: str) -> dict:
  """Moves the bytes of a merge, with plain reads and writes."""
  del method
  buffer = memoryview(bytearray(1 << 24))
  start = time.perf_counter()
  for t in range(models + 1):
    with open(folder / f'{t}.safetensors', 'rb', buffering=0) as file:
      while file.readinto(buffer):
        pass
  read = time.perf_counter() - start
  size = (folder / '0.safetensors').stat().st_size
  start = time.perf_counter()
  with open(folder / 'floor', 'wb', buffering=0) as file:
    for done in range(0, size, len(buffer)):
      file.write(buffer[: size - done])
  write = time.perf_counter() - start
  (folder / 'floor').unlink()
  return {'seconds': read + write, 'read': read, 'write': write}


def plan(folder: pathlib.Path, models: int, method: str) -> dict:
  """Plans a merge."""
  start = time.perf_counter()
  what = checkpoint.plan(merged(folder, models, method))
  return {
    'seconds': time.perf_counter() - start,
    'bytes_in': what.bytes_in,
    'bytes_out': what.bytes_out,
    'planned_mib': what.peak_bytes / 2**20,
  }


def stream(folder: pathlib.Path, models: int, method: str) -> dict:
  """Merges, compilation included."""
  start, path = time.perf_counter(), folder / 'merged.safetensors'
  checkpoint.save(path, merged(folder, models, method))
  seconds = time.perf_counter() - start
  path.unlink()
  return {'seconds': seconds}


_STAGES = {'floor': floor, 'plan': plan, 'stream': stream}


def measure(stage: str, folder: pathlib.Path, models: int, method: str) -> dict:
  """Runs a stage; says what memory the process had before and at its peak."""
  before = peak_mib()
  result = _STAGES[stage](folder, models, method)
  return {'stage': stage, **result, 'before_mib': before, 'mib': peak_mib()}


def peak_mib() -> float:
  """Returns the peak resident memory of this process."""
  status = pathlib.Path('/proc/self/status')
  if status.exists():
    line = next(x for x in status.read_text().splitlines() if 'VmHWM' in x)
    return int(line.split()[1]) / 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / (2**20 if sys.platform == 'darwin' else 1024)


def main() -> None:
  """Writes the models, measures, deletes them."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--millions', type=float, default=300)
  parser.add_argument('--models', type=int, default=3)
  parser.add_argument('--method', choices=_METHODS, default='mean')
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--scratch', default=None, help='default: the system one')
  flags = parser.parse_args()
  processes = multiprocessing.get_context('spawn')
  with tempfile.TemporaryDirectory(dir=flags.scratch) as scratch:
    folder = pathlib.Path(scratch)
    for t in range(flags.models + 1):
      generate(folder / f'{t}.safetensors', flags.millions, t)
    for _ in range(flags.repeats):
      for stage in _STAGES:
        with processes.Pool(1) as pool:
          task = (stage, folder, flags.models, flags.method)
          result = pool.apply(measure, task)
        print(json.dumps({**vars(flags), **result}), flush=True)


if __name__ == '__main__':
  main()
