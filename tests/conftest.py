"""Strict settings for every test: x64, no silent promotion, eight devices.

With ``WSL_TEST_DEFAULTS=1`` JAX keeps its defaults, as users have them: x64
off, dtypes and ranks promoted. ``defaults_test.py`` runs the tests of doors,
merges and checkpoints a second time in this way, without those that are marked
``same_under_defaults(reason)``.

The time of the tests is mostly the compilation of small programs. XLA and LLVM
optimise less here; the programs compute the same to rounding.

``JAX_PLATFORMS=cuda`` runs the tests on a GPU, with XLA's own flags. Tests that
need more devices than there are, or that are about a CPU, are skipped there:
they are marked ``needs_devices(8)`` and ``cpu_only(reason)``.
"""

from collections.abc import Iterator
import gc
import importlib.metadata
import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = ' '.join(
  [
    '--xla_force_host_platform_device_count=8',
    *(
      [
        '--xla_backend_optimization_level=0',
        '--xla_llvm_disable_expensive_passes=true',
        '--xla_cpu_parallel_codegen_split_count=1',
      ]
      if os.environ['JAX_PLATFORMS'] == 'cpu'
      else []
    ),
    # XLA ends the process at an unknown flag, and later releases lack this one.
    '--xla_cpu_use_fusion_emitters=false'
    if importlib.metadata.version('jaxlib').startswith('0.10.')
    else '',
    # Of a flag that is given twice the last value counts.
    os.environ.get('XLA_FLAGS', ''),
  ]
)
# Tests start processes of their own, which share the memory of a GPU.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
# The threads of OpenBLAS and of XLA wait for each other (see wsl/README.md).
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import jax
import pytest

from tests import fewer_programs

fewer_programs.install()

# Modules, tests and cached programs are millions of objects in each process.
# Searching all of them for cycles again and again took a tenth of the time: see
# ``pytest_collection_finish``.
gc.disable()

DEFAULTS = os.environ.get('WSL_TEST_DEFAULTS') == '1'
if not DEFAULTS:
  jax.config.update('jax_enable_x64', True)
  jax.config.update('jax_numpy_dtype_promotion', 'strict')
  jax.config.update('jax_numpy_rank_promotion', 'raise')

# Each compiled program has three mapped pieces of memory or more, and Linux
# allows 65,530 in a process: the next one ends it, in the middle of XLA.
_MAPS = pathlib.Path('/proc/self/maps')
_MOST_MAPS = 45_000

_MARKERS = {
  'needs_devices(number)': 'skipped where there are fewer devices',
  'same_under_defaults(reason)': "not run again with JAX's defaults",
  'cpu_only(reason)': 'skipped on other backends, as the assertion is of a CPU',
}


def pytest_configure(config: pytest.Config) -> None:
  for name, meaning in _MARKERS.items():
    config.addinivalue_line('markers', f'{name}: {meaning}')


def pytest_collection_modifyitems(
  config: pytest.Config, items: list[pytest.Item]
) -> None:
  """Deselects tests whose second run would repeat the first."""
  if not DEFAULTS:
    return
  again = [i for i in items if i.get_closest_marker('same_under_defaults')]
  config.hook.pytest_deselected(items=again)
  items[:] = [item for item in items if item not in again]


def pytest_collection_finish() -> None:
  """Collects cycles again, among the objects that are made from now on."""
  gc.freeze()
  gc.set_threshold(100_000, 20, 10)
  gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
  backend = jax.default_backend()
  for mark in item.iter_markers('needs_devices'):
    (number,) = mark.args
    if jax.device_count() < number:
      pytest.skip(f'needs {number} devices: {backend} has {jax.device_count()}')
  for mark in item.iter_markers('cpu_only'):
    (reason,) = mark.args
    if backend != 'cpu':
      pytest.skip(f'holds on a CPU only: {reason}')


def pytest_runtest_teardown(
  item: pytest.Item, nextitem: pytest.Item | None
) -> None:
  """Drops all programs before there are too many, between two files."""
  if nextitem is None or nextitem.path == item.path or not _MAPS.exists():
    return
  if _count_maps() > _MOST_MAPS:
    jax.clear_caches()
    gc.collect()


def _count_maps() -> int:
  """Returns the number of mapped pieces of memory of this process."""
  with _MAPS.open('rb') as lines:
    return sum(1 for _ in lines)


@pytest.fixture
def full_precision() -> Iterator[None]:
  """Multiplies in float32 on a GPU too, where the default of models is TF32."""
  with jax.default_matmul_precision('highest'):
    yield
