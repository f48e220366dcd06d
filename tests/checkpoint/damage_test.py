"""Damaged, missing and foreign files raise one line with a remedy."""

import json

import numpy as np
import pytest

from wsl import checkpoint


def _raw(header, payload=b''):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return len(text).to_bytes(8, 'little') + text + payload


def _leaf(start, stop, shape, dtype='F32'):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': [start, stop]}


_TWICE = f'{{"a": {json.dumps(_leaf(0, 8, [2]))}, "a": 3}}'
_TWO = {'a': _leaf(0, 8, [2]), 'b': _leaf(8, 12, [1])}


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'is empty, not safetensors: copy it again'),
    (b'\x01\x02', 'is damaged'),
    (_raw({})[:4], 'is damaged'),
    ((1 << 40).to_bytes(8, 'little') + b'{}', 'should take 1099511627776'),
    (_raw(_TWO)[:30], 'should take'),
    (_raw(b'not json'), 'its header is not a JSON object'),
    (_raw(b'\xff\xfe{}'), 'its header is not a JSON object'),
    (_raw([1]), 'its header is not a JSON object'),
    (_raw({'a': 3}), "entry of leaf 'a' is malformed"),
    (_raw({'a': {'dtype': 'F32'}}), "entry of leaf 'a' is malformed"),
    (_raw({'a': _leaf(0, 8, [-2])}), "entry of leaf 'a' is malformed"),
    (_raw({'a': _leaf(0, 8, 2)}), "entry of leaf 'a' is malformed"),
    (_raw({'a': _leaf(8, 0, [2])}), "leaf 'a' has -8 bytes"),
    (_raw({'a': _leaf(0, 4, [2])}, b'1234'), r'F32\[2\] needs 8'),
    (_raw({'a': _leaf(0, 4, [2], 'F5')}, b'1234'), "'a' of .* dtype 'F5'"),
    (
      _raw({'a': _leaf(0, 4, [2], ['F4'])}, b'1234'),
      "of leaf 'a' is malformed",
    ),
    (_raw(_TWO, bytes(11)), "truncated: leaf 'b' ends at byte"),
    (_raw(_TWO, bytes(13)), '1 bytes at its end belong to no leaf'),
    (
      _raw({'a': _leaf(0, 8, [2]), 'b': _leaf(4, 8, [1])}, bytes(8)),
      "leaf 'b' overlaps the one before",
    ),
    (
      _raw({'a': _leaf(0, 8, [2]), 'b': _leaf(12, 16, [1])}, bytes(16)),
      "leaf 'b' follows a gap",
    ),
    (_raw(_TWICE.encode(), bytes(8)), "its header has the name 'a' twice"),
    # Lengths of headers that start like a pickle, gzip and msgpack.
    (b'\x80\x02' + bytes(6) + b'{"a":', 'should take 640 bytes'),
    (b'\x1f\x8b' + bytes(6) + b'{"a":', 'should take 35615 bytes'),
    (b'\x81\xa1' + bytes(6), 'should take 41345 bytes'),
    (b'version https://git-lfs.github.com/spec/v1\noid', 'run git lfs pull'),
  ],
)
@pytest.mark.parametrize('lazy', [False, True])
def test_damaged_file(tmp_path, content, message, lazy):
  file = tmp_path / 'a.safetensors'
  file.write_bytes(content)
  with pytest.raises(ValueError, match=message) as caught:
    checkpoint.load(file, lazy=lazy)
  assert str(file) in str(caught.value)
  assert '\n' not in str(caught.value)


def test_a_sound_file_is_read(tmp_path):
  file = tmp_path / 'a.safetensors'
  file.write_bytes(_raw(_TWO, np.float32([1, 2, 3]).tobytes()))
  loaded = checkpoint.load(file)
  assert loaded['a'].tolist() == [1.0, 2.0]
  assert loaded['b'].tolist() == [3.0]


def test_missing_file(tmp_path):
  for path in (tmp_path / 'a.safetensors', tmp_path / 'folder'):
    with pytest.raises(FileNotFoundError, match=f'no file {path}'):
      checkpoint.load(path)
  with pytest.raises(FileNotFoundError, match='holds neither'):
    checkpoint.load(tmp_path)


def test_a_link_to_a_missing_file(tmp_path):
  link = tmp_path / 'model.safetensors'
  link.symlink_to('.git/annex/objects/xy')
  for path in (link, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'link to \.git/annex/objects'):
      checkpoint.load(path)


def test_a_folder_of_several_files(tmp_path):
  for name in ('a', 'b'):
    checkpoint.save(tmp_path / f'{name}.safetensors', {})
  with pytest.raises(FileNotFoundError, match=r'2 other .*give one file'):
    checkpoint.load(tmp_path)


def test_missing_shard(tmp_path):
  checkpoint.save(tmp_path, {'a': np.ones(2), 'b': np.ones(2)}, shard_bytes=1)
  (tmp_path / 'model-00002-of-00002.safetensors').unlink()
  with pytest.raises(FileNotFoundError, match=r'model-00002-of-00002.*missing'):
    checkpoint.load(tmp_path)


def test_wrong_shard(tmp_path):
  checkpoint.save(tmp_path, {'a': np.ones(2), 'b': np.ones(2)}, shard_bytes=1)
  second = tmp_path / 'model-00002-of-00002.safetensors'
  checkpoint.save(second, {'c': np.ones(2)})
  with pytest.raises(ValueError, match="has no leaf 'b'"):
    checkpoint.load(tmp_path)


@pytest.mark.parametrize(
  'index',
  [
    '{',
    '[]',
    '{"metadata": {}}',
    '{"weight_map": ["a"]}',
    '{"weight_map": {"a": 3}}',
    '{"weight_map": {"a": "../a.safetensors"}}',
    '{"weight_map": {"a": "/a.safetensors"}}',
  ],
)
def test_damaged_index(tmp_path, index):
  checkpoint.save(tmp_path / 'a.safetensors', {'a': np.ones(2)})
  folder = tmp_path / 'folder'
  folder.mkdir()
  (folder / 'model.safetensors.index.json').write_text(index)
  with pytest.raises(ValueError, match='does not map names to files beside it'):
    checkpoint.load(folder)
  # A save over it must not follow such names either.
  checkpoint.save(folder, {'b': np.ones(2)})
  assert checkpoint.load(folder).keys() == {'b'}
  assert (tmp_path / 'a.safetensors').exists()


def test_metadata_must_be_strings(tmp_path):
  for metadata, message in [
    ({'step': 3}, r"metadata\['step'\] must be a string: 3"),
    ({3: 'a'}, r'metadata\[3\] must be'),
    ({'wsl.tree': ''}, "key 'wsl.tree' is taken"),
  ]:
    with pytest.raises(ValueError, match=message):
      checkpoint.save(tmp_path / 'a.safetensors', {}, metadata=metadata)


def test_shards_need_a_folder_and_a_size(tmp_path):
  with pytest.raises(ValueError, match='drop the suffix'):
    checkpoint.save(tmp_path / 'a.safetensors', {}, shard_bytes=8)
  with pytest.raises(ValueError, match=r'save\(shard_bytes=0\)'):
    checkpoint.save(tmp_path, {}, shard_bytes=0)
