"""Strict settings for every test: x64, no silent promotion, eight devices.

With ``WSL_TEST_DEFAULTS=1`` JAX keeps its defaults, as users have them: x64
off, dtypes and ranks promoted. ``defaults_test.py`` runs the tests of doors,
merges and checkpoints a second time in this way.

The time of the tests is mostly the compilation of small programs. XLA and LLVM
optimise less here; the programs compute the same to rounding.
"""

import importlib.metadata
import os

os.environ['XLA_FLAGS'] = ' '.join(
  [
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',
    '--xla_llvm_disable_expensive_passes=true',
    '--xla_cpu_parallel_codegen_split_count=1',
    # XLA ends the process at an unknown flag, and later releases lack this one.
    '--xla_cpu_use_fusion_emitters=false'
    if importlib.metadata.version('jaxlib').startswith('0.10.')
    else '',
    os.environ.get('XLA_FLAGS', ''),
  ]
)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# The threads of OpenBLAS and of XLA wait for each other (see wsl/README.md).
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import jax

if os.environ.get('WSL_TEST_DEFAULTS') != '1':
  jax.config.update('jax_enable_x64', True)
  jax.config.update('jax_numpy_dtype_promotion', 'strict')
  jax.config.update('jax_numpy_rank_promotion', 'raise')
