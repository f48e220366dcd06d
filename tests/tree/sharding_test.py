"""Statistics of sharded leaves do not gather the leaves."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import traces
from wsl import tree
from wsl.tree._ranks import batches as batches_lib
from wsl.tree._ranks import reductions

SHAPE = (3, 64, 4096)
COLUMNS = 16384


def _gathers(fn, spec, *operands):
  """Returns the number of entries of each array that is gathered."""
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ('d',))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
  x = jax.device_put(jnp.ones(SHAPE, jnp.float32), sharding)
  text = jax.jit(fn).lower(x, *operands).compile().as_text()
  lines = [line for line in text.splitlines() if 'all-gather(' in line]
  shapes = [re.search(r'= \(?\w+\[([\d,]+)\]', line)[1] for line in lines]
  return [math.prod(map(int, shape.split(','))) for shape in shapes]


@pytest.mark.parametrize('spec', [(None, 'd'), (None, None, 'd')])
@pytest.mark.needs_devices(8)
@pytest.mark.cpu_only('it reads the compiled program')
def test_counts_and_sums_do_not_gather(spec):
  probes = jnp.ones((2, 3, 4), jnp.int32)
  lo, hi = jnp.zeros((2, 3), jnp.int32), jnp.full((2, 3), 9, jnp.int32)
  count = lambda x, *limits: reductions._count([x, 2 * x], *limits)
  inside = lambda x, *limits: reductions._inside(
    [x, 2 * x], *limits, most=COLUMNS
  )
  # The parts of the counts are gathered, or the columns; the leaf is not.
  assert max(_gathers(count, spec, probes), default=0) <= 2 * 4 * 3 * 8
  gathered = _gathers(inside, spec, lo, hi)
  most = 2 * 2 * 3 * COLUMNS
  assert max(gathered, default=0) <= most
  assert sum(gathered) <= most < 2 * math.prod(SHAPE) / 4
  assert not _gathers(tree.sum_entries, spec)


@pytest.mark.needs_devices(8)
@pytest.mark.cpu_only('it reads the compiled program')
def test_the_check_detects_a_gather():
  flat = lambda x: jnp.sort(x.reshape(3, -1), axis=1)
  assert max(_gathers(flat, (None, None, 'd'))) == math.prod(SHAPE)


@pytest.mark.parametrize('stacked', [False, True])
@traces.fresh()
def test_several_ranks_of_several_leaves_are_those_of_sorting(
  stacked, monkeypatch
):
  if stacked:  # as on a GPU
    monkeypatch.setattr(
      jax.lax, 'platform_dependent', lambda *xs, cpu, default: default(*xs)
    )
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 150, 190)))
  wanted = np.sort(np.abs(np.asarray(x)).reshape(2, -1), axis=1)[:, -5000]
  found = jax.jit(lambda x: tree.kth_magnitude(x, 5000))(x)
  np.testing.assert_array_equal(found, wanted)
  np.testing.assert_array_equal(tree.kth_magnitude([x[:1]], 5000), wanted[:1])
  both = {'a': x, 'b': 2 * x, 'c': x[:, :3, :5]}
  ranks = jnp.asarray([[5000, 7], [1, 28_500]])
  small = jnp.asarray([[3, 3], [15, 1]])
  find = jax.jit(lambda xs: tree.kth_in_leaves(xs, [ranks, ranks, small]))
  for rows, y, k in zip(
    find(list(both.values())), both.values(), (ranks, ranks, small)
  ):
    ordered = np.sort(np.abs(np.asarray(y)).reshape(2, -1), axis=1)[:, ::-1]
    wanted = [ordered[np.arange(2), np.asarray(r) - 1] for r in k]
    np.testing.assert_array_equal(rows, wanted)


def test_batches_are_of_equal_leaves_and_of_one_size():
  leaf = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  roles = ['w'] * 5 + ['q'] * 4 + ['b'] * 20
  leaves = [leaf(3, 512, 512)] * 9 + [leaf(3, 64)] * 19 + [leaf(3, 65)]
  found = batches_lib.of_leaves(leaves, roles)
  assert sorted(sum(found, ())) == list(range(len(leaves)))
  assert [len(b) for b in found] == [5, 4, 10, 9, 1]
  for batch in found:
    assert len({(leaves[i].shape, roles[i]) for i in batch}) == 1
