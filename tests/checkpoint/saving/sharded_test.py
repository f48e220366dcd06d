"""Sharded arrays are saved in blocks, and load on any other mesh."""

from typing import Any

import jax
import numpy as np
import pytest

from wsl import checkpoint, mesh, tree
from wsl.checkpoint._write import pieces

pytestmark = pytest.mark.needs_devices(8)
RNG = np.random.default_rng(0)


def place(x: Any, shape: str, *spec: Any) -> jax.Array:
  where = jax.sharding.NamedSharding(mesh.make(shape), jax.P(*spec))
  return jax.device_put(x, where)


@pytest.mark.parametrize(
  ('shape', 'spec'),
  [
    ('a:8', ('a',)),
    ('a:8', (None, 'a')),
    ('a:4,b:2', ('a', None, 'b')),
    ('a:2,b:2,c:2', ('a', 'b', 'c')),
    ('a:2,b:2,c:2', (None, ('c', 'a'))),
  ],
)
def test_pieces_are_the_entries_in_order(
  shape: str, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(pieces, '_BLOCK_BYTES', 1000)
  monkeypatch.setattr(pieces, '_RUN_BYTES', 4)
  x = RNG.normal(size=(8, 16, 6)).astype(np.float32)
  whole, gather = [], mesh.gather
  monkeypatch.setattr(mesh, 'gather', lambda y: whole.append(y) or gather(y))
  leaves = {'x': place(x, shape, *spec), 'y': np.ones(3, np.int8)}
  found = list(pieces.of(leaves))
  assert [y.shape for y in whole] == [(3,)]
  assert max(p.values.size for p in found) <= max(250, x.size // 8)
  values = [p.values for p in found if p.name == 'x']
  np.testing.assert_array_equal(np.concatenate(values), x.reshape(-1))
  assert [p.name for p in found if p.last] == ['x', 'y']


def test_a_checkpoint_of_one_mesh_loads_on_others(tmp_path: Any) -> None:
  """Of both formats: eight devices, four by two, one."""
  params = {
    'w': RNG.normal(size=(16, 8)).astype(np.float32),
    'b': RNG.normal(size=8).astype(np.float32),
  }
  rules = {
    'a:8': [('w', jax.P('a')), ('', 'a')],
    'a:4,b:2': [('w', jax.P('a', 'b')), ('b', 'b')],
    'a:1': 'a',
  }
  before = mesh.shard(params, rules['a:8'], mesh.make('a:8'))
  checkpoint.save(tmp_path / 'a', before)
  checkpoint.save_run(tmp_path / 'run', before, step=0)
  for shape, rule in rules.items():
    where = mesh.shardings(params, rule, mesh.make(shape))
    for path in ('a', 'run'):
      found = checkpoint.load(tmp_path / path, sharding=where)
      for name, x in tree.named(params).items():
        assert found[name].sharding == where[name]
        np.testing.assert_array_equal(found[name], x)
    # Saved again from this mesh, the file has the same bytes.
    checkpoint.save(tmp_path / 'b', found)
    files = [tmp_path / x / 'model.safetensors' for x in 'ab']
    assert len({file.read_bytes() for file in files}) == 1
