"""On accelerators, statistics of sharded leaves do not gather the leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import tree
from wsl.tree._ranks import passes

SHAPE = (3, 16, 24)


def _gathers(fn, spec, *operands):
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ('d',))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
  x = jax.device_put(jnp.ones(SHAPE, jnp.float32), sharding)
  text = jax.jit(fn).lower(x, *operands).compile().as_text()
  return [line for line in text.splitlines() if 'all-gather(' in line]


@pytest.mark.parametrize('spec', [(None, 'd'), (None, None, 'd')])
@pytest.mark.needs_devices(8)
@pytest.mark.cpu_only('it reads the compiled program')
def test_counts_and_sums_do_not_gather(spec):
  probes = jnp.ones((3, 4), jnp.int32)
  lo, hi = jnp.zeros(3, jnp.int32), jnp.full(3, 9, jnp.int32)
  assert not _gathers(passes._count_plainly, spec, probes)
  assert not _gathers(passes._inside_plainly, spec, lo, hi)
  assert not _gathers(tree.sum_entries, spec)


@pytest.mark.needs_devices(8)
@pytest.mark.cpu_only('it reads the compiled program')
def test_the_check_detects_a_gather():
  flat = lambda x: jnp.sort(x.reshape(3, -1), axis=1)
  assert _gathers(flat, (None, None, 'd'))


def test_one_column_finds_the_same_threshold_as_many(monkeypatch):
  """The accelerators' passes find the same threshold as the CPU's."""
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 150, 190)))
  wanted = np.sort(np.abs(np.asarray(x)).reshape(2, -1), axis=1)[:, -5000]
  monkeypatch.setattr(
    jax.lax, 'platform_dependent', lambda *xs, cpu, default: default(*xs)
  )
  found = jax.jit(lambda x: tree.kth_magnitude(x, 5000))(x)
  np.testing.assert_array_equal(found, wanted)
  np.testing.assert_array_equal(tree.kth_magnitude([x[:1]], 5000), wanted[:1])
