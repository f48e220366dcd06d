"""Strict settings for every test: x64, no silent promotion, eight devices."""

import os

os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# The threads of OpenBLAS and of XLA wait for each other (see the README).
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import jax

jax.config.update('jax_enable_x64', True)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
