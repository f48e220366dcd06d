"""Shards without an index, and an index that disagrees with its shards."""

import json

import numpy as np
import pytest
from safetensors import numpy as published

from wsl import checkpoint, tree


def _write(folder, stem='model', leaves=None, total=3, digits=5):
  """Writes one leaf to each shard, as Hugging Face names them."""
  for i in range(total):
    name = f'{stem}-{i + 1:0{digits}d}-of-{total:0{digits}d}.safetensors'
    held = {f'layers.{i}.w': np.full(4, i, np.float32)}
    if leaves is not None:
      held = leaves[i]
    published.save_file(held, folder / name, metadata={'format': 'pt'})


def _index(folder, shard_of, name='model.safetensors.index.json'):
  shard_of = {
    leaf: f'model-{i:05d}-of-00002.safetensors' for leaf, i in shard_of.items()
  }
  (folder / name).write_text(json.dumps({'weight_map': shard_of}))


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('stem', ['model', 'diffusion_pytorch_model', 'a-b'])
@pytest.mark.parametrize('digits', [1, 5, 6])
def test_shards_without_an_index_are_joined(tmp_path, lazy, stem, digits):
  _write(tmp_path, stem, digits=digits)
  loaded = tree.read(checkpoint.load(tmp_path, lazy=lazy))
  assert list(loaded) == [f'layers.{i}.w' for i in range(3)]
  for i, value in enumerate(loaded.values()):
    assert value.tolist() == [i] * 4
  assert checkpoint.metadata(tmp_path) == {'format': 'pt'}


def test_own_shards_without_an_index_keep_their_structure(tmp_path):
  params = {'layers': [np.full(2, i) for i in range(11)], 'head': (np.ones(1),)}
  checkpoint.save(tmp_path, params, shard_bytes=16)
  (tmp_path / 'model.safetensors.index.json').unlink()
  loaded = checkpoint.load(tmp_path)
  assert [int(x[0]) for x in loaded['layers']] == list(range(11))
  assert isinstance(loaded['head'], tuple)


@pytest.mark.parametrize('stem', ['model-', 'model_', 'model.safetensors-'])
def test_shards_may_be_counted_from_zero(tmp_path, stem):
  for i in range(3):
    published.save_file(
      {f'{i}': np.ones(1)}, tmp_path / f'{stem}{i:05d}-of-00003.safetensors'
    )
  assert list(checkpoint.load(tmp_path)) == ['0', '1', '2']
  (tmp_path / f'{stem}00000-of-00003.safetensors').rename(
    tmp_path / f'{stem}00007-of-00003.safetensors'
  )
  with pytest.raises(FileNotFoundError, match=r'lacks 1 of 3 .*00003-of-00003'):
    checkpoint.load(tmp_path)
  published.save_file(
    {'3': np.ones(1)}, tmp_path / f'{stem}00003-of-00003.safetensors'
  )
  with pytest.raises(ValueError, match=r"and \['.*00007-of.*remove"):
    checkpoint.load(tmp_path)


def test_a_shard_that_the_index_omits_is_reported(tmp_path):
  leaves = [{'a': np.ones(1)}, {'b': np.zeros(2)}]
  _write(tmp_path, leaves=leaves, total=2)
  _index(tmp_path, {'a': 1})
  with pytest.raises(ValueError, match=r'00002-of-00002.* is not in .*index'):
    checkpoint.load(tmp_path)
  # Shards of another series do not belong to this index.
  _index(tmp_path, {'a': 1, 'b': 2})
  checkpoint.save(tmp_path / 'model-00001-of-00009.safetensors', {})
  assert checkpoint.load(tmp_path).keys() == {'a', 'b'}


def test_an_index_of_another_format_is_named(tmp_path):
  content = 'version https://git-lfs.github.com/spec/v1'
  (tmp_path / 'model.safetensors.index.json').write_text(content)
  with pytest.raises(ValueError, match='a Git LFS pointer'):
    checkpoint.load(tmp_path)


def test_one_shard_of_an_own_checkpoint_says_so(tmp_path):
  checkpoint.save(tmp_path, {'a': np.ones(1), 'b': [np.ones(1)]}, shard_bytes=1)
  shard = tmp_path / 'model-00001-of-00002.safetensors'
  with pytest.raises(ValueError, match='one shard of several'):
    checkpoint.load(shard)
  like = {'a': np.zeros(1)}
  assert checkpoint.load(shard, like=like)['a'].tolist() == [1.0]


def test_missing_shards_are_named(tmp_path):
  _write(tmp_path)
  (tmp_path / 'model-00002-of-00003.safetensors').unlink()
  with pytest.raises(
    FileNotFoundError, match=r"lacks 1 of 3 shards, \['model-00002-of-00003"
  ):
    checkpoint.load(tmp_path)


def test_two_checkpoints_in_one_folder_are_named(tmp_path):
  _write(tmp_path)
  checkpoint.save(tmp_path / 'adapter.safetensors', {'a': np.ones(1)})
  with pytest.raises(
    FileNotFoundError, match=r"\['adapter', 'model-\*-of-00003'\]: move"
  ):
    checkpoint.load(tmp_path)


@pytest.mark.parametrize('suffix', ['index.json', 'index.fp16.json'])
def test_an_index_of_another_name_is_read(tmp_path, suffix):
  leaves = [{'a': np.ones(1)}, {'b': np.zeros(2)}]
  _write(tmp_path, leaves=leaves, total=2)
  name = f'weights.safetensors.{suffix}'
  _index(tmp_path, {'a': 1, 'b': 2}, name)
  for path in (tmp_path, tmp_path / name):
    assert checkpoint.load(path).keys() == {'a', 'b'}
  _index(tmp_path, {'a': 1, 'b': 2}, 'other.safetensors.index.json')
  with pytest.raises(FileNotFoundError, match=r'several indices.*give one'):
    checkpoint.load(tmp_path)
  assert checkpoint.load(tmp_path / name).keys() == {'a', 'b'}


def test_a_leaf_that_the_index_omits_is_reported(tmp_path):
  leaves = [{'a': np.ones(1)}, {'b': np.zeros(2), 'c': np.ones(1)}]
  _write(tmp_path, leaves=leaves, total=2)
  _index(tmp_path, {'a': 1, 'b': 2})
  with pytest.raises(ValueError, match=r"leaf 'c' that .* omits: .*remove"):
    checkpoint.load(tmp_path)
  (tmp_path / 'model.safetensors.index.json').unlink()
  assert checkpoint.load(tmp_path).keys() == {'a', 'b', 'c'}


@pytest.mark.parametrize('with_index', [False, True])
def test_a_leaf_in_two_shards_is_reported(tmp_path, with_index):
  leaves = [{'a': np.ones(1), 'b': np.ones(2)}, {'b': np.zeros(2)}]
  _write(tmp_path, leaves=leaves, total=2)
  if with_index:
    _index(tmp_path, {'a': 1, 'b': 2})
  with pytest.raises(ValueError, match=r"leaf 'b' is in both .*00001.*00002"):
    checkpoint.load(tmp_path)


def test_a_leaf_named_twice_by_the_index_is_reported(tmp_path):
  _write(tmp_path, leaves=[{'a': np.ones(1)}, {'b': np.zeros(2)}], total=2)
  text = '{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}'
  (tmp_path / 'model.safetensors.index.json').write_text(text)
  with pytest.raises(ValueError, match="has the name 'a' twice"):
    checkpoint.load(tmp_path)
