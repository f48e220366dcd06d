"""The structure of loaded trees, and the placement of their leaves."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as published

from wsl import checkpoint, tree

P = jax.sharding.PartitionSpec


class Pair(NamedTuple):
  first: np.ndarray
  second: np.ndarray


def _params():
  return {
    'block_0': {'kernel': np.arange(6.0).reshape(2, 3), 'bias': np.ones(3)},
    'heads': [np.arange(2), (np.zeros(1), None, ())],
    'model.layers.0/odd name': np.float32([1.5]),
    'none': None,
    'empty': {},
  }


def _assert_equal(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('shard_bytes', [None, 1, 30, 10_000])
def test_round_trip_of_structure(tmp_path, lazy, shard_bytes):
  checkpoint.save(tmp_path / 'a', _params(), shard_bytes=shard_bytes)
  loaded = checkpoint.load(tmp_path / 'a', lazy=lazy)
  assert tree.on_demand(loaded) == lazy
  _assert_equal(tree.read(loaded), _params())


def test_other_nodes_become_dicts_of_their_fields(tmp_path):
  file = tmp_path / 'a.safetensors'
  saved = {'pair': Pair(np.zeros(1), np.ones(2)), 'ints': {3: np.ones(1)}}
  checkpoint.save(file, saved)
  _assert_equal(
    checkpoint.load(file),
    {
      'pair': {'first': np.zeros(1), 'second': np.ones(2)},
      'ints': {3: np.ones(1)},
    },
  )
  _assert_equal(checkpoint.load(file, like=saved), saved)


def test_names_of_others_stay_flat(tmp_path):
  leaves = {'model.layers.0.w': np.ones(2), 'a/b': np.zeros(1)}
  published.save_file(leaves, tmp_path / 'a.safetensors')
  _assert_equal(checkpoint.load(tmp_path / 'a.safetensors'), leaves)
  like = {'a': {'b': np.ones(1)}, 'model.layers.0.w': jnp.zeros(2)}
  nested = checkpoint.load(tmp_path / 'a.safetensors', like=like)
  assert nested['a']['b'].tolist() == [0.0]


def test_python_numbers_become_arrays(tmp_path):
  checkpoint.save(tmp_path / 'a', {'step': 3, 'rate': 0.5})
  loaded = checkpoint.load(tmp_path / 'a')
  assert (loaded['step'].dtype, loaded['step'].item()) == (np.int64, 3)
  assert (loaded['rate'].dtype, loaded['rate'].item()) == (np.float64, 0.5)


@pytest.mark.parametrize(
  ('like', 'message'),
  [
    ({'kernel': 0}, "has no leaf 'kernel' \\(did you mean 'kernels'"),
    ({'kernels': np.ones(2)}, "has a leaf 'bias' that like= does not have"),
    (
      {'kernels': np.ones(2), 'bias': np.ones(4)},
      r"leaf 'bias' of .* has shape \(3,\), like= has \(4,\)",
    ),
  ],
)
def test_like_must_fit(tmp_path, like, message):
  file = tmp_path / 'a.safetensors'
  checkpoint.save(file, {'kernels': np.ones(2), 'bias': np.ones(3)})
  with pytest.raises(ValueError, match=message):
    checkpoint.load(file, like=like)


def test_a_record_that_does_not_fit_is_an_error(tmp_path):
  file = tmp_path / 'a.safetensors'
  leaves = {'a': np.ones(1), 'b': np.ones(1)}
  for record in ('{"a":"a"}', '{"a":"a","b":"c"}', '["set","a","b"]', '{', '3'):
    published.save_file(leaves, file, metadata={'wsl.tree': record})
    with pytest.raises(ValueError, match='does not fit'):
      checkpoint.load(file)
    assert checkpoint.load(file, like=leaves).keys() == leaves.keys()


def test_hugging_face_shards(tmp_path):
  published.save_file({'a.w': np.ones(2)}, tmp_path / 'x-1.safetensors')
  published.save_file({'b.w': np.zeros(3)}, tmp_path / 'x-2.safetensors')
  index = {
    'metadata': {'total_size': 40},
    'weight_map': {'b.w': 'x-2.safetensors', 'a.w': 'x-1.safetensors'},
  }
  (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(index))
  loaded = checkpoint.load(tmp_path)
  _assert_equal(loaded, {'a.w': np.ones(2), 'b.w': np.zeros(3)})
  assert checkpoint.metadata(tmp_path) == {}


def test_shards_as_hugging_face_writes_them(tmp_path):
  leaves = {'a': np.ones(4), 'b': np.ones(2), 'c': np.ones(2)}
  checkpoint.save(tmp_path, leaves, shard_bytes=32, metadata={'x': 'y'})
  files = sorted(path.name for path in tmp_path.iterdir())
  assert files == [
    'model-00001-of-00002.safetensors',
    'model-00002-of-00002.safetensors',
    'model.safetensors.index.json',
  ]
  index = json.loads((tmp_path / files[-1]).read_text())
  assert index['metadata']['total_size'] == 64
  assert index['weight_map'] == {'a': files[0], 'b': files[1], 'c': files[1]}
  assert published.load_file(tmp_path / files[1]).keys() == {'b', 'c'}
  assert checkpoint.metadata(tmp_path) == {'x': 'y'}


def test_a_save_replaces_the_checkpoint_of_a_folder(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  checkpoint.save(tmp_path, {'a': np.ones(2), 'b': np.ones(2)}, shard_bytes=1)
  checkpoint.save(tmp_path, {'a': np.zeros(2)})
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == ['config.json', 'model.safetensors']
  checkpoint.save(tmp_path, {'c': np.zeros(2)}, shard_bytes=100)
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == [
    'config.json',
    'model-00001-of-00001.safetensors',
    'model.safetensors.index.json',
  ]
  assert checkpoint.load(tmp_path).keys() == {'c'}


def test_a_folder_with_one_file(tmp_path):
  checkpoint.save(tmp_path / 'other.safetensors', {'a': np.ones(2)})
  assert checkpoint.load(tmp_path)['a'].tolist() == [1.0, 1.0]


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.needs_devices(8)
def test_sharding(tmp_path, lazy):
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  rows = jax.sharding.NamedSharding(mesh, P('d'))
  whole = jax.sharding.NamedSharding(mesh, P())
  params = {
    'w': np.arange(32, dtype=np.float32).reshape(16, 2),
    'v': {'x': np.ones(8, np.float32)},
  }
  checkpoint.save(tmp_path, params)
  for sharding in (
    rows,
    {'w': rows, 'v': rows},
    lambda name: rows if name in ('w', 'v/x') else whole,
  ):
    loaded = tree.read(checkpoint.load(tmp_path, lazy=lazy, sharding=sharding))
    assert loaded['w'].sharding == rows
    assert loaded['v']['x'].sharding == rows
    _assert_equal(jax.device_get(loaded), params)
  with pytest.raises(ValueError, match="no value stands for leaf 'v/x'"):
    checkpoint.load(tmp_path, sharding={'w': rows})


@pytest.mark.needs_devices(8)
def test_a_sharded_array_is_saved_whole(tmp_path):
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  x = jax.device_put(jnp.arange(16.0), jax.sharding.NamedSharding(mesh, P('d')))
  checkpoint.save(tmp_path, {'x': x})
  assert checkpoint.load(tmp_path)['x'].tolist() == list(range(16))
