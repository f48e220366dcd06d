"""Strict settings for every test: x64, no silent promotion, eight devices."""

import os

os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# The threads of OpenBLAS and of XLA wait for each other (see the README).
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import jax
import pytest

jax.config.update('jax_enable_x64', True)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')

# Rooms whose tests compile for most of their time.
COMPILED_QUICKLY = ('experiments', 'stitch')


@pytest.fixture(scope='module', autouse=True)
def compile_quickly(request):
  """Optimizes less there; what the programs compute is the same."""
  quickly = not set(COMPILED_QUICKLY).isdisjoint(request.path.parts)
  jax.config.update('jax_disable_most_optimizations', quickly)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
