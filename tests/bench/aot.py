"""Compiles merges for an NVIDIA GPU on a machine that has none.

  pip install 'jax-cuda12-plugin[with-cuda]'   # of jax's version; 5 GB
  JAX_PLATFORMS=cpu python tests/bench/aot.py --leaves=60 --side=2048

One JSON line for each method: the seconds to trace and to compile it, which are
those of this machine, its processor's seconds to compile, the temporaries in
stacks of T models, and what is in the program: kernels, how many of them
differ, the stacks that each of its computations reads and writes, library
calls, loops and products below full precision. A search by rank is a loop with
two branches, one of which is taken in each step. ``--operations`` compiles the
small call of every public operation instead.

XLA compiles for an H100 with 80 GB as it is described below. Autotuning, which
needs the GPU, is left out, and sorts are kernels, which are slow to compile; a
GPU has a library for them.
"""

import json
import os
import pathlib
import re
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import app, flags
import jax
from jax.experimental import topologies
import jax.numpy as jnp

from tests import operations
from tests.bench._gpu import spectral, speed, traffic
from tests.operations import inputs
from wsl import merge

_ONLY = flags.DEFINE_list('only', [], 'methods; all by default')
_LEAVES = flags.DEFINE_integer('leaves', 60, 'leaves of one model')
_SIDE = flags.DEFINE_integer('side', 2048, 'leaves are side x side matrices')
_LAYERS = flags.DEFINE_integer('layers', 12, 'of ViT-B/32, for SVD methods')

_OPERATIONS = flags.DEFINE_bool('operations', False, 'all operations, tiny')

H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def main(argv: list[str]) -> None:
  """Prints a line for each method."""
  del argv
  devices = topologies.get_topology_desc(
    'h100', platform='cuda', target_config=H100, topology='1x1x1'
  ).devices
  mesh = jax.sharding.Mesh(devices[:1], ('device',))
  whole = jax.sharding.NamedSharding(mesh, jax.P())
  cases = _operations() if _OPERATIONS.value else _merges()
  for name, (fn, args) in cases.items():
    if not _ONLY.value or name in _ONLY.value:
      found = _compile(fn, jax.tree.map(lambda x: _shape(x, whole), args))
      print(json.dumps({'name': name, **found}), flush=True)


def _shape(x: Any, sharding: Any) -> Any:
  """Returns the shape of an array on the device; numbers are as they are."""
  if not hasattr(x, 'dtype'):
    return x
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _merges() -> inputs.Table:
  """Returns merges of large task vectors, by their shapes."""
  leaf = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  square = leaf(speed.T, _SIDE.value, _SIDE.value)
  deltas = {f'block_{i}/kernel': square for i in range(_LEAVES.value)}
  shapes = spectral.shapes(_LAYERS.value, spectral.WIDTH)
  matrices = {n: leaf(spectral.T, *s) for n, s in shapes.items()}
  methods = speed.methods() | speed.compiled()
  elementwise = {n: (fn, (deltas, deltas)) for n, fn in methods.items()}
  by_svd = {n: (getattr(merge, n), (matrices,)) for n in spectral.METHODS}
  return elementwise | by_svd


def _operations() -> inputs.Table:
  """Returns all operations; the products of users are at full precision."""
  inputs.MARK = 'highest'
  return operations.table('float32')


def _compile(fn: Any, args: Any) -> dict[str, Any]:
  start = time.perf_counter()
  traced = jax.jit(fn).trace(*args)
  lowered = traced.lower(lowering_platforms=('cuda',))
  middle, began = time.perf_counter(), _processor()
  program = lowered.compile()
  end, ended = time.perf_counter(), _processor()
  arrays = [x for x in jax.tree.leaves(args[:1]) if hasattr(x, 'dtype')]
  stack = sum(x.size * x.dtype.itemsize for x in arrays) or 1
  text = program.as_text()
  count = lambda pattern: len(re.findall(pattern, text))
  products = re.findall(
    r'^.* (?:dot|convolution)\(.*$|^.*__cublas\$l?gemm.*$', text, re.M
  )
  return {
    'trace_s': round(middle - start, 1),
    'compile_s': round(end - middle, 1),
    'processor_s': round(ended - began, 1),
    'temporaries': round(
      program.memory_analysis().temp_size_in_bytes / stack, 2
    ),
    'products below full precision': sum(
      'highest' not in line.lower() for line in products
    ),
    **traffic.kernels(text, stack),
    'calls': sorted(set(re.findall(r'custom_call_target="([^"]+)"', text))),
    'loops': count(r' while\('),
    'conditionals': count(r' conditional\('),
  }


def _processor() -> float:
  """Returns the processor seconds of this process and of its children."""
  spent = os.times()
  return spent.user + spent.system + spent.children_user + spent.children_system


if __name__ == '__main__':
  app.run(main)
