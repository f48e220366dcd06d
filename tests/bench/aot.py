"""Compiles merges for an NVIDIA GPU on a machine that has none.

  pip install 'jax-cuda12-plugin[with-cuda]'   # of jax's version; 5 GB
  JAX_PLATFORMS=cpu python tests/bench/aot.py --leaves=60 --side=2048

One JSON line for each method: the seconds to trace and to compile it, which are
those of this machine's processor, the temporaries in stacks of T models, and
the kernels, library calls and loops of the program. XLA compiles for an H100
with 80 GB as it is described below. Autotuning, which needs the GPU, is left
out.
"""

import json
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

from tests.bench._gpu import spectral, speed
from wsl import merge

_ONLY = flags.DEFINE_list('only', [], 'methods; all by default')
_LEAVES = flags.DEFINE_integer('leaves', 60, 'leaves of one model')
_SIDE = flags.DEFINE_integer('side', 2048, 'leaves are side x side matrices')
_LAYERS = flags.DEFINE_integer('layers', 12, 'of ViT-B/32, for SVD methods')

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
  leaf = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=whole)
  square = leaf(speed.T, _SIDE.value, _SIDE.value)
  deltas = {f'block_{i}/kernel': square for i in range(_LEAVES.value)}
  shapes = spectral.shapes(_LAYERS.value, spectral.WIDTH)
  matrices = {n: leaf(spectral.T, *s) for n, s in shapes.items()}
  cases = {n: (fn, (deltas, deltas)) for n, fn in speed.methods().items()}
  cases |= {
    n: (getattr(merge, n), (matrices,)) for n in spectral.METHODS
  }  # fmt: skip
  for name, (fn, args) in cases.items():
    if not _ONLY.value or name in _ONLY.value:
      print(json.dumps({'method': name, **_compile(fn, args)}), flush=True)


def _compile(fn: Any, args: Any) -> dict[str, Any]:
  start = time.perf_counter()
  traced = jax.jit(fn).trace(*args)
  lowered = traced.lower(lowering_platforms=('cuda',))
  middle = time.perf_counter()
  program = lowered.compile()
  end = time.perf_counter()
  stack = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(args[0]))
  text = program.as_text()
  count = lambda pattern: len(re.findall(pattern, text))
  return {
    'trace_s': round(middle - start, 1),
    'compile_s': round(end - middle, 1),
    'temporaries': round(
      program.memory_analysis().temp_size_in_bytes / stack, 2
    ),
    'fusions': count(r' fusion\('),
    'calls': sorted(set(re.findall(r'custom_call_target="([^"]+)"', text))),
    'loops': count(r' while\('),
    'conditionals': count(r' conditional\('),
  }


if __name__ == '__main__':
  app.run(main)
