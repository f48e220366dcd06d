"""Time for 70,000 tensors of 4 KiB, compared with the safetensors package.

Each line of JSON is an operation: the medians of paired repeats in one process,
in seconds, of wsl and of the package (``null`` where it has no counterpart), of
the wall clock and of the processor, and the ratio of the latter.

Run: python tests/bench/many_tensors.py --tensors=70000 --repeats=5
"""

import argparse
from collections.abc import Callable
import json
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np
import safetensors
from safetensors import numpy as published

from wsl import checkpoint, tree


def _open(file: pathlib.Path) -> None:
  """Opens a file by the package and asks for its names."""
  with safetensors.safe_open(file, 'np') as opened:
    list(opened.keys())


def operations(
  folder: pathlib.Path, params: dict[str, np.ndarray]
) -> dict[str, tuple[Callable[[], object], Callable[[], object] | None]]:
  """Returns each operation by wsl and by the package."""
  file, out = folder / 'in.safetensors', folder / 'out.safetensors'
  shards = folder / 'shards'
  published.save_file(params, file)
  save = lambda: published.save_file(params, out)
  copy = lambda: published.save_file(published.load_file(file), out)
  lazy = lambda: checkpoint.load(file, lazy=True)
  return {
    'open': (lazy, lambda: _open(file)),
    'read': (
      lambda: checkpoint.load(file),
      lambda: published.load_file(file),
    ),
    'plan': (lambda: checkpoint.plan(file), None),
    'save': (lambda: checkpoint.save(out, params), save),
    'save shards': (
      lambda: checkpoint.save(shards, params, shard_bytes=1 << 26),
      save,
    ),
    'save with checksums': (
      lambda: checkpoint.save(out, params, checksums=True),
      save,
    ),
    'copy': (lambda: checkpoint.save(out, lazy()), copy),
    'double': (lambda: checkpoint.save(out, tree.map(_double, lazy())), copy),
  }


def _double(x: jax.Array) -> jax.Array:
  return x + x


def measure(run: Callable[[], object]) -> tuple[float, float]:
  """Returns the seconds of the wall clock and of the processor."""
  wall, cpu = time.perf_counter(), time.process_time()
  run()
  return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
  """Prints a line for each operation."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--tensors', type=int, default=70_000)
  parser.add_argument('--repeats', type=int, default=5)
  args = parser.parse_args()
  params = {
    f'model.layers.{i}.weight': np.ones(1024, np.float32)
    for i in range(args.tensors)
  }
  jax.process_index()  # Starts the backend.
  with tempfile.TemporaryDirectory() as scratch:
    pairs = operations(pathlib.Path(scratch), params)
    for name, (own, other) in pairs.items():
      times = []
      for _ in range(args.repeats):
        times.append((measure(own), measure(other) if other else (None, None)))
      row: dict[str, object] = {'operation': name}
      for i, clock in enumerate(('wall', 'cpu')):
        mine = statistics.median(x[0][i] for x in times)
        row[clock] = round(mine, 3)
        row[f'{clock}_package'] = None
        if other:
          theirs = statistics.median(x[1][i] for x in times)
          row |= {
            f'{clock}_package': round(theirs, 3),
            f'{clock}_ratio': round(mine / theirs, 2),
          }
      print(json.dumps(row), flush=True)


if __name__ == '__main__':
  main()
