"""Orbax in parts: slabs of chunks in order, and regions of devices."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checkpoint import writers
from wsl import checkpoint, tree
from wsl.checkpoint._read.orbax import array

pytestmark = pytest.mark.needs_devices(8)
P = jax.sharding.PartitionSpec
SHAPE = (24, 6)
SPECS = {'rows': P(('a', 'b')), 'both': P('a', 'b'), 'columns': P(None, 'b')}
KINDS = ('StandardCheckpointer', 'without OCDBT', 'zarr3')


def mesh(*sizes: int) -> jax.sharding.Mesh:
  devices = np.asarray(jax.devices()[: int(np.prod(sizes))]).reshape(sizes)
  return jax.sharding.Mesh(devices, ('a', 'b'))


def values(name: str) -> np.ndarray:
  first = 1000.0 * list([*SPECS, 'host']).index(name)
  return np.float32(first + np.arange(np.prod(SHAPE)).reshape(SHAPE))


def save(path: pathlib.Path, kind: str) -> pathlib.Path:
  """Saves arrays that are sharded over eight devices, and one that is not."""
  params: dict[str, Any] = {'host': values('host')}
  for name, spec in SPECS.items():
    place = jax.sharding.NamedSharding(mesh(4, 2), spec)
    params[name] = jax.device_put(values(name), place)
  writers.SINGLE[kind](path / 'a', params)
  return path / 'a'


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
  """A slab is one row of chunks, however small."""
  monkeypatch.setattr(array, '_LEAST_BYTES', 1)


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
  """Records the shape of every part that is read."""
  found: list[tuple[int, ...]] = []
  read = array.Array.region

  def region(self: Any, index: Any) -> np.ndarray:
    part = read(self, index)
    found.append(part.shape)
    return part

  monkeypatch.setattr(array.Array, 'region', region)
  return found


@pytest.mark.parametrize('kind', KINDS)
def test_entries_in_order_are_read_by_slabs(
  kind: str, tmp_path: pathlib.Path, regions: list[tuple[int, ...]]
) -> None:
  lazy = checkpoint.load(save(tmp_path, kind), lazy=True)
  # Orbax splits the rows of columns over the devices that hold the same.
  for name, slabs in {'rows': 8, 'both': 4, 'columns': 4, 'host': 0}.items():
    leaf, flat = lazy[name], values(name).reshape(-1)
    assert (leaf.read_into is not None) == bool(slabs)
    if not slabs:
      continue
    for step in (1, 7, 36, 144):
      regions.clear()
      for start in range(0, flat.size, step):
        out = np.empty(min(step, flat.size - start), np.float32)
        leaf.read_into(start, out)
        np.testing.assert_array_equal(out, flat[start : start + step])
      # Each chunk is read once, by one slab at a time.
      assert regions == [(SHAPE[0] // slabs, SHAPE[1])] * slabs
    for start, stop in ((100, 130), (3, 4), (17, 60)):
      out = np.empty(stop - start, np.float32)
      leaf.read_into(start, out)
      np.testing.assert_array_equal(out, flat[start:stop])


def test_slabs_of_small_chunks_are_joined(
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
  regions: list[tuple[int, ...]],
) -> None:
  path = save(tmp_path, 'zarr3')
  monkeypatch.setattr(array, '_LEAST_BYTES', 200)  # two chunks of 72 bytes
  leaf = checkpoint.load(path, lazy=True)['rows']
  regions.clear()
  out = np.empty(leaf.size, np.float32)
  leaf.read_into(0, out)
  np.testing.assert_array_equal(out, values('rows').reshape(-1))
  assert regions == [(6, 6)] * 4
  monkeypatch.setattr(array, '_LEAST_BYTES', 1 << 20)
  assert checkpoint.load(path, lazy=True)['rows'].read_into is None


def test_a_copy_and_its_plan_hold_a_slab(
  tmp_path: pathlib.Path, regions: list[tuple[int, ...]]
) -> None:
  path = save(tmp_path, 'StandardCheckpointer')
  lazy = {'rows': checkpoint.load(path, lazy=True)['rows']}
  double = tree.map(jnp.multiply, lazy, {'rows': np.float32(2)})
  slab = values('rows').nbytes // 8
  plan, copy = checkpoint.plan(double), checkpoint.plan(lazy)
  assert plan.bytes_in == copy.bytes_in == values('rows').nbytes
  assert plan.leaves[0].how == 'in chunks'
  plain = tree.Stored(lambda: None, SHAPE, np.dtype('float32'), print)
  wanted = checkpoint.plan(
    tree.map(jnp.multiply, {'rows': plain}, {'rows': 2.0})
  )
  assert plan.leaves[0].peak_bytes == wanted.leaves[0].peak_bytes + 2 * slab
  regions.clear()
  checkpoint.save(tmp_path / 'out', double, chunk_bytes=64)
  assert regions == [(3, 6)] * 8
  found = checkpoint.load(tmp_path / 'out')['rows']
  np.testing.assert_array_equal(found, 2 * values('rows'))


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_any_mesh_is_restored(
  kind: str,
  lazy: bool,
  tmp_path: pathlib.Path,
  regions: list[tuple[int, ...]],
) -> None:
  path = save(tmp_path, kind)
  spec = {'rows': P('b'), 'both': P(None, ('a', 'b')), 'columns': P('a')}
  spec['host'] = P('b', 'a')
  for sizes in ((2, 3), (1, 2)):
    places = {
      name: jax.sharding.NamedSharding(mesh(*sizes), one)
      for name, one in spec.items()
    }
    found = checkpoint.load(path, lazy=lazy, sharding=places)
    for name, place in places.items():
      regions.clear()
      x = tree.read(found[name])
      assert x.sharding == place
      np.testing.assert_array_equal(x, values(name))
      # A device reads its own part alone.
      assert set(regions) <= {place.shard_shape(SHAPE)}
      assert bool(regions) == lazy


def test_a_value_that_is_not_finite_is_named_by_its_place(
  tmp_path: pathlib.Path,
) -> None:
  x = values('rows')
  x[20, 4] = np.nan
  place = jax.sharding.NamedSharding(mesh(4, 2), P('a', 'b'))
  params = {'w': jax.device_put(x, place)}
  writers.SINGLE['StandardCheckpointer'](tmp_path / 'a', params)
  for sharding in (None, place):
    lazy = checkpoint.load(tmp_path / 'a', lazy=True, sharding=sharding)
    with pytest.raises(ValueError, match=r"leaf 'w' of .* is nan at \[20, 4\]"):
      tree.read(lazy)
  lazy = checkpoint.load(tmp_path / 'a', lazy=True)
  with pytest.raises(ValueError, match=r"leaf 'w' of .* is nan at \[20, 4\]"):
    lazy['w'].read_into(108, np.empty(36, np.float32))
