"""Files made to harm: one line at once, and nothing is run or removed."""

import io
import json
import os
import struct
import time
import zipfile

import numpy as np
import pytest

from tests.checkpoint.readers import writers
from wsl import checkpoint

_SECONDS = 2.0  # of the processor; 0.3 on an idle machine
_INDEX = 'model.safetensors.index.json'
_ENTRY = {'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}}


def _refused(path, message, **options):
  """Checks that a load fails in one line, in little time."""
  start = time.process_time()
  with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
    checkpoint.load(path, **options)
  assert time.process_time() - start < _SECONDS
  assert len(str(caught.value).splitlines()) == 1
  assert len(str(caught.value).replace(str(path), '')) < 250
  assert str(caught.value).startswith('load: ')


def _safetensors(header):
  text = json.dumps(header).encode()
  return len(text).to_bytes(8, 'little') + text + bytes(8)


def _with_tree(record):
  return _safetensors({'__metadata__': {'wsl.tree': record}, **_ENTRY})


def _shape(shape):
  entry = {'dtype': 'F32', 'shape': shape, 'data_offsets': [0, 8]}
  return _safetensors({'a': entry})


def _empty(shape):
  entry = {'dtype': 'F32', 'shape': shape, 'data_offsets': [0, 0]}
  return _safetensors({'a': entry})[:-8]


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (_with_tree('[' * 100_000), 'structure recorded'),
    (_with_tree(json.dumps(['list'] + ['a'] * 1_000_000)), 'structure'),
    (_with_tree(json.dumps(['dict', ['x', 'a'], [3, None]])), 'structure'),
    (_with_tree(json.dumps(['dict', [[[1]], 'a']])), 'structure'),
    (_shape([2**62] * 100_000 + [0]), 'beyond 64 bits'),
    (_shape([2] * 100_000), 'beyond 64 bits'),
    (_shape([1] * 100 + [2]), 'a shape that NumPy does not have'),
    (_empty([0, 2**62, 2**62]), 'a shape that NumPy does not have'),
  ],
)
def test_safetensors(tmp_path, content, message):
  file = tmp_path / 'a.safetensors'
  file.write_bytes(content)
  _refused(file, message)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('{"weight_map":' + '[' * 100_000 + ']' * 100_000 + '}', 'does not map'),
    ('{"weight_map":{"a":' + '9' * 1_000_000 + '}}', 'does not map'),
    ('{"weight_map":{"a":"' + 'x' * 1000 + '.safetensors"}}', 'does not map'),
    ('{"weight_map":{"a":"x\\ny.safetensors"}}', 'does not map'),
    ('{"weight_map":{"a":"\\ud800.safetensors"}}', 'does not map'),
    (
      json.dumps(
        {'weight_map': {f'{i}': f'{i}.safetensors' for i in range(200_000)}}
      ),
      'shard 0.safetensors, .* is missing',
    ),
  ],
  ids=['brackets', 'digits', 'long', 'line', 'surrogate', 'many'],
)
def test_an_index(tmp_path, content, message):
  (tmp_path / _INDEX).write_text(content)
  _refused(tmp_path, message)


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir])
@pytest.mark.parametrize('indexed', [False, True])
def test_a_shard_that_is_no_file(tmp_path, make, indexed):
  name = 'model-00001-of-00001.safetensors'
  make(tmp_path / name)
  if indexed:
    content = json.dumps({'weight_map': {'a': name}})
    (tmp_path / _INDEX).write_text(content)
  _refused(tmp_path, 'is missing or no file|is a named pipe|is a folder')


@pytest.mark.parametrize(
  'name', ['a.bin', 'a.npz', 'a.gguf', 'a.msgpack', _INDEX]
)
@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_of_any_suffix(tmp_path, name, make):
  make(tmp_path / name)
  _refused(tmp_path, 'is a named pipe: give|is a folder: give')


def test_a_link_to_itself(tmp_path):
  file = tmp_path / 'model.safetensors'
  file.symlink_to(file)
  _refused(file, 'is a link that leads to itself')
  _refused(tmp_path, 'is a link that leads to itself')


@pytest.mark.parametrize('name', ['_METADATA', '_CHECKPOINT_METADATA'])
def test_a_mark_of_orbax_that_is_a_pipe(tmp_path, name):
  os.mkfifo(tmp_path / name)
  _refused(tmp_path, 'holds neither')


def test_a_config_that_is_a_pipe_is_not_opened(tmp_path):
  os.mkfifo(tmp_path / 'config.json')
  checkpoint.save(tmp_path, {'w': np.ones(2)})
  assert checkpoint.load(tmp_path)['w'].tolist() == [1, 1]


@pytest.mark.parametrize('name', ['config', 'outside', 'foreign'])
def test_a_save_removes_no_file_that_an_index_names(tmp_path, name):
  folder = tmp_path / 'folder'
  folder.mkdir()
  outside = tmp_path / 'outside.safetensors'
  checkpoint.save(outside, {'w': np.ones(2)})
  files = {
    'config': ('config.json', lambda p: p.write_text('{}')),
    'outside': ('a.safetensors', lambda p: p.symlink_to(outside)),
    'foreign': ('a.safetensors', lambda p: p.write_bytes(_safetensors(_ENTRY))),
  }
  shard, make = files[name]
  make(folder / shard)
  # The index claims to be of wsl.
  index = {'metadata': {'wsl.tree': '{}'}, 'weight_map': {'a': shard}}
  (folder / _INDEX).write_text(json.dumps(index))
  before = (folder / shard).read_bytes()
  if name == 'config':  # The index is damaged, and is replaced.
    checkpoint.save(folder, {'b': np.ones(3)})
  else:
    with pytest.raises(ValueError, match='which wsl has not written'):
      checkpoint.save(folder, {'b': np.ones(3)})
  assert (folder / shard).read_bytes() == before
  assert checkpoint.load(outside)['w'].tolist() == [1, 1]


def _tensor(shape, strides):
  return {'a': writers.Tensor(np.zeros(2, np.float32), shape, strides)}


@pytest.mark.parametrize(
  ('node', 'message'),
  [
    (_tensor((2**31,) * 100_000 + (0,), (1,) * 100_001), '100001 axes'),
    (_tensor((2**40,), (0,)), 'expands 8 bytes to 4398046511104'),
    (_tensor((2**40, 2**40), (0, 0)), 'beyond 64 bits'),
  ],
)
def test_tensors_of_pytorch(tmp_path, node, message):
  writers.torch_zip(tmp_path / 'a.bin', node)
  _refused(tmp_path / 'a.bin', message)


@pytest.mark.parametrize(
  ('pickle', 'message'),
  [
    (b'\x80\x02' + b']' * 100_000 + b'a' * 99_999 + b'.', 'too deeply'),
    (
      b'\x80\x02K\x01'
      + b''.join(bytes([113, i, 104, i, 0x86]) for i in range(60))
      + b'.',
      'one container many times',
    ),
    (b'\x80\x02\x8b' + struct.pack('<i', 2**31 - 1) + b'1.', 'not enough data'),
    (b'\x80\x04\x8d' + struct.pack('<Q', 2**60) + b'1.', 'only 2 remain'),
  ],
  ids=['deep', 'doubling', 'long', 'string'],
)
def test_pickles(tmp_path, pickle, message):
  writers.torch_zip(tmp_path / 'a.bin', None, pickle=pickle)
  _refused(tmp_path / 'a.bin', message)


def _npz(shape, content=b''):
  head = f"{{'descr':'<f4','fortran_order':False,'shape':{shape}}}".encode()
  return b'\x93NUMPY\x02\x00' + struct.pack('<I', len(head)) + head + content


def _zipped(members, compression=zipfile.ZIP_STORED):
  out = io.BytesIO()
  with zipfile.ZipFile(out, 'w', compression) as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  return bytearray(out.getvalue())


def _stating(data, *, packed=None, nbytes=None):
  """Changes the sizes that the archive's list states of its first member."""
  at = data.index(b'PK\x01\x02')
  for place, size in ((20, packed), (24, nbytes)):
    if size is not None:
      data[at + place : at + place + 4] = struct.pack('<I', size)
  return bytes(data)


def test_archives(tmp_path):
  file = tmp_path / 'a.npz'
  zeros = _npz('(1000,)', bytes(4000))
  packed = _zipped({'a.npy': zeros}, zipfile.ZIP_DEFLATED)
  for content, message in [
    (_zipped({'a.npy': _npz('(' + '9223372036854775807,' * 99 + ')')}), 'malf'),
    (_zipped({'a.npy': _npz('(' * 4000 + ')' * 4000)}), 'malformed'),
    (_stating(packed[:], nbytes=2**31), 'unpacks .* bytes to 2147483648'),
    (_stating(packed[:], packed=2**30), 'overlap'),
    (_stating(packed[:], nbytes=4000), 'CRC-32|needs 4000'),
    (_stating(_zipped({'archive/data.pkl': b'.'}), nbytes=9), 'is cut'),
  ]:
    file.write_bytes(content)
    _refused(file, message)


def _gguf(counts, body):
  return b'GGUF' + struct.pack('<IQQ', 3, *counts) + body


def _text(x):
  return struct.pack('<Q', len(x)) + x


def _described(sizes, place):
  axes = struct.pack(f'<I{len(sizes)}Q', len(sizes), *sizes)
  return _text(b't') + axes + struct.pack('<IQ', 0, place) + bytes(64)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (_gguf((2**63, 2**63), bytes(100)), 'truncated'),
    (_gguf((0, 1), struct.pack('<Q', 2**63) + b'a'), 'truncated'),
    (_gguf((0, 1), _text(b'k') + struct.pack('<IIQ', 9, 4, 2**62)), 'truncat'),
    (
      _gguf(
        (0, 1),
        _text(b'k') + struct.pack('<I', 9) + struct.pack('<IQ', 9, 1) * 9999,
      ),
      'nested too deeply',
    ),
    (_gguf((1, 0), _described([2**63] * 8, 0)), 'beyond 64 bits'),
    (_gguf((1, 0), _described([2**63, 0], 0)), 'beyond 64 bits'),
    (_gguf((1, 0), _described([4], 2**64 - 16)), 'ends beyond it'),
  ],
)
def test_gguf(tmp_path, content, message):
  (tmp_path / 'a.gguf').write_bytes(content)
  _refused(tmp_path / 'a.gguf', message)


def _msgpack(shape, dtype, data=b'\xc4\x08abcdefgh'):
  content = b'\x93' + shape + bytes([0xA0 + len(dtype)]) + dtype + data
  size = struct.pack('>I', len(content))
  return b'\x81\xa1a\xc9' + size + b'\x01' + content


_HUGE = b'\xcf' + b'\xff' * 8


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'\x81\xa1a' * 100_000, 'too deeply'),
    (b'\x81\xa1a\xdd' + b'\xff' * 4 + b'\xc0' * 9, 'is damaged'),
    (b'\x81\xa1a\xdb' + b'\xff' * 4 + b'\xc0' * 9, 'truncated'),
    (b'\x81\xa1a\xc9' + b'\xff' * 4 + b'\x01', 'is damaged'),
    (
      _msgpack(b'\xdd' + struct.pack('>I', 50_000) + _HUGE * 50_000, b'int8'),
      '50000 axes',
    ),
    (_msgpack(b'\x92' + _HUGE * 2, b'int8'), 'beyond 64 bits'),
    (_msgpack(b'\x91\x01', b'object'), 'has dtype object'),
    (_msgpack(b'\x91\x01', b'finfo'), 'has dtype finfo'),
  ],
)
def test_msgpack(tmp_path, content, message):
  (tmp_path / 'a.msgpack').write_bytes(content)
  _refused(tmp_path / 'a.msgpack', message)


def test_the_number_of_values_is_bounded(tmp_path, monkeypatch):
  from wsl.checkpoint._read import sizes

  monkeypatch.setattr(sizes, '_MOST_VALUES', 100)
  (tmp_path / 'a.msgpack').write_bytes(b'\x81\xa1a\xdc\x00\xc8' + b'\xc0' * 200)
  _refused(tmp_path / 'a.msgpack', 'more than 100 values')
  strings = _text(b'k') + struct.pack('<IIQ', 9, 8, 200) + bytes(8 * 200)
  (tmp_path / 'a.gguf').write_bytes(_gguf((0, 1), strings))
  _refused(tmp_path / 'a.gguf', 'more than 100 values')
