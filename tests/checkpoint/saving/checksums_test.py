"""Checksums of leaves: recorded on request, verified when leaves are read."""

import hashlib
import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors import numpy as published

from wsl import adapters, checkpoint, deltas, merge, tree


def _params():
  rng = np.random.default_rng(0)
  return {
    'large': rng.standard_normal((600, 500)),
    'half': rng.standard_normal(7).astype(ml_dtypes.bfloat16),
    'count': np.arange(5),
    'empty': np.zeros((0, 3)),
    'scalar': np.float32(2),
    'odd "name"\n': np.ones(3, bool),
  }


def _recorded(file):
  with safetensors.safe_open(file, 'np') as opened:
    return json.loads(opened.metadata()['wsl.sha256'])


@pytest.mark.parametrize('shard_bytes', [None, 1, 100])
def test_the_sha256_of_each_leaf_is_recorded(tmp_path, shard_bytes):
  checkpoint.save(tmp_path, _params(), checksums=True, shard_bytes=shard_bytes)
  found = {}
  for file in tmp_path.glob('*.safetensors'):
    found |= _recorded(file)
  assert found == {
    name: hashlib.sha256(np.asarray(x).tobytes()).hexdigest()
    for name, x in _params().items()
  }
  loaded = checkpoint.load(tmp_path)
  for name, x in _params().items():
    np.testing.assert_array_equal(loaded[name], x)
  assert checkpoint.metadata(tmp_path) == {}
  assert tree.read(checkpoint.load(tmp_path, lazy=True)).keys() == found.keys()


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('name', ['large', 'half', 'count', 'scalar'])
def test_a_flipped_bit_is_found(tmp_path, name, lazy):
  file = tmp_path / 'a.safetensors'
  checkpoint.save(file, _params(), checksums=True)
  data = bytearray(file.read_bytes())
  length = int.from_bytes(data[:8], 'little')
  start, stop = json.loads(data[8 : 8 + length])[name]['data_offsets']
  data[8 + length + (start + stop) // 2] ^= 1
  file.write_bytes(data)
  with pytest.raises(
    ValueError, match=f"leaf '{name}' of {file} does not have the SHA-256"
  ) as caught:
    tree.read(checkpoint.load(file, lazy=lazy))
  assert '\n' not in str(caught.value)
  loaded = checkpoint.load(file, lazy=True)
  for other in loaded.keys() - {name}:
    tree.read(loaded[other])
  for _ in range(2):  # An error does not count as a verification.
    with pytest.raises(ValueError, match='SHA-256'):
      tree.read(loaded[name])


def test_a_flipped_bit_is_found_when_leaves_are_read_in_slices(tmp_path):
  file = tmp_path / 'a.safetensors'
  checkpoint.save(file, {'w': np.arange(1e6)}, checksums=True)
  with open(file, 'r+b') as opened:
    opened.seek(-1, 2)
    opened.write(b'\x00')
  leaf = checkpoint.load(file, lazy=True)['w']
  with pytest.raises(ValueError, match='SHA-256'):
    leaf.read_into(0, np.empty(10))


@pytest.mark.parametrize('chunk_bytes', [1 << 10, 1 << 20])
def test_leaves_that_end_with_a_short_chunk(tmp_path, chunk_bytes):
  """The end of a large leaf is written beside small leaves, not as one."""
  shapes = {'a': 300_000, 'b': 3, 'c': 700, 'd': 290_000, 'e': 5}
  for i, name in enumerate(('base', 'model')):
    rng = np.random.default_rng(i)
    params = {k: rng.normal(size=n).astype('f4') for k, n in shapes.items()}
    checkpoint.save(tmp_path / name, params)
  base, model = (
    checkpoint.load(tmp_path / name, lazy=True) for name in ('base', 'model')
  )
  merged = deltas.apply(base, merge.mean(deltas.stack(base, [model])), coef=0.5)
  options = {'checksums': True, 'chunk_bytes': chunk_bytes}
  checkpoint.save(tmp_path / 'out', merged, **options)
  loaded = checkpoint.load(tmp_path / 'out')  # verifies the hashes
  for name, x in merged.items():
    np.testing.assert_array_equal(loaded[name], tree.read(x))


def test_a_merge_does_not_inherit_checksums(tmp_path):
  for name in 'abc':
    params = {'w': np.full(9, ord(name), np.float32)}
    checkpoint.save(tmp_path / name, params, checksums=True)
  base, *models = (
    checkpoint.load(tmp_path / name, lazy=True) for name in 'abc'
  )
  merged = deltas.apply(base, merge.mean(deltas.stack(base, models)))
  checkpoint.save(tmp_path / 'out', merged)
  with safetensors.safe_open(tmp_path / 'out/model.safetensors', 'np') as file:
    assert file.metadata().keys() == {'wsl.tree'}
  checkpoint.save(tmp_path / 'out', merged, checksums=True)
  assert _recorded(tmp_path / 'out/model.safetensors').keys() == {'w'}
  assert checkpoint.load(tmp_path / 'out')['w'].dtype == np.float32


def test_checksums_of_computed_leaves(tmp_path):
  checkpoint.save(tmp_path / 'in', {'w': np.arange(6.0)}, checksums=True)
  lazy = checkpoint.load(tmp_path / 'in', lazy=True)
  doubled = tree.map(_double, lazy)
  checkpoint.save(tmp_path / 'out', doubled, checksums=True, dtype='float32')
  want = (2 * np.arange(6, dtype=np.float32)).tobytes()
  found = _recorded(tmp_path / 'out/model.safetensors')
  assert found == {'w': hashlib.sha256(want).hexdigest()}


def _double(x):
  return x * jnp.asarray(2, x.dtype)


@pytest.mark.parametrize('text', ['', '3', '[1]', '{', '{"w": 3}', '{}x'])
def test_malformed_checksums(tmp_path, text):
  file = tmp_path / 'a.safetensors'
  metadata = {'wsl.sha256': text}
  published.save_file({'w': np.ones(2)}, file, metadata)
  with pytest.raises(ValueError, match=r'sha256|SHA-256') as caught:
    checkpoint.load(file)
  assert '\n' not in str(caught.value)


def test_the_key_is_taken(tmp_path):
  with pytest.raises(ValueError, match=r"key 'wsl\.sha256' is taken"):
    checkpoint.save(tmp_path, {}, metadata={'wsl.sha256': ''})


def test_checksums_of_factors_are_verified(tmp_path):
  delta = {'q.weight': np.outer(np.arange(1, 4), np.ones(5)).astype('f4')}
  found = adapters.extract(delta, rank=1, matrices=tree.torch)
  checkpoint.save_lora(tmp_path / 'a', found.factors, checksums=True)
  base = {'q.weight': np.zeros((3, 5), np.float32)}
  loaded = tree.read(checkpoint.load_lora(base, tmp_path / 'a'))
  np.testing.assert_allclose(loaded['q.weight'], delta['q.weight'], rtol=1e-5)
  file = tmp_path / 'a' / 'adapter_model.safetensors'
  data = bytearray(file.read_bytes())
  data[-1] ^= 1
  file.write_bytes(data)
  with pytest.raises(ValueError, match=r"leaf 'base_model\.model\.q.*SHA-256"):
    tree.read(checkpoint.load_lora(base, tmp_path / 'a'))
