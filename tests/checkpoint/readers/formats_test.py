"""NPZ, msgpack of Flax and GGUF: values, chunks, damage, dtypes."""

import io
import zipfile

from flax import serialization
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest

from tests.checkpoint import dtypes
from tests.checkpoint.readers import writers
from wsl import checkpoint, tree

ARRAYS = {
  'layers.10.w': np.arange(6, dtype=np.float32).reshape(2, 3),
  'layers.2.w': np.arange(4.0),
  'scalar': np.asarray(3, np.int8),
  'empty': np.zeros((0, 4), np.float16),
}


def _npz(path, arrays):
  np.savez(path, **arrays)


def _msgpack(path, arrays):
  path.write_bytes(serialization.msgpack_serialize(dict(arrays)))


def _torch(path, arrays):
  content = {name: writers.whole(array) for name, array in arrays.items()}
  writers.torch_zip(path, content)


def _legacy(path, arrays):
  content = {name: writers.whole(array) for name, array in arrays.items()}
  writers.torch_legacy(path, content)


FORMATS = {
  'a.safetensors': checkpoint.save,
  'a.npz': _npz,
  'a.msgpack': _msgpack,
  'a.pt': _torch,
  'a.bin': _legacy,
  'a.gguf': writers.gguf,
}
_STANDARD = [x for x in dtypes.ALL if x.__module__ == 'numpy']
_GGUF = [np.float32, np.float16, np.float64, ml_dtypes.bfloat16]
_GGUF += [np.int8, np.int16, np.int32, np.int64]
_LEGACY = [np.uint8, np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
_LEGACY += [np.int8, np.int16, np.int32, np.int64, np.bool_, np.complex64]
DTYPES = {
  'a.safetensors': dtypes.ALL,
  'a.npz': [*_STANDARD, np.complex128],
  'a.msgpack': [*dtypes.ALL, np.complex128],
  'a.pt': [*dtypes.ALL, np.complex128],
  'a.bin': [*_LEGACY, np.complex128],
  'a.gguf': _GGUF,
}


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('name', FORMATS)
def test_all_formats_give_the_same_leaves(tmp_path, name, lazy):
  FORMATS[name](tmp_path / name, ARRAYS)
  for path in (tmp_path / name, tmp_path):
    loaded = checkpoint.load(path, lazy=lazy)
    assert list(loaded)[-2:] == ['layers.2.w', 'layers.10.w'] or (
      set(loaded) == set(ARRAYS)
    )
    for key, array in ARRAYS.items():
      leaf = loaded[key]
      assert isinstance(leaf, tree.Stored) == lazy
      assert (leaf.shape, leaf.dtype) == (array.shape, array.dtype)
      np.testing.assert_array_equal(tree.read(leaf), array)
      if lazy:
        out = np.zeros(array.size, array.dtype)
        leaf.read_into(0, out)
        assert out.tobytes() == array.tobytes()


@pytest.mark.parametrize(
  ('name', 'dtype'), [(n, d) for n, found in DTYPES.items() for d in found]
)
def test_dtypes_are_exact_in_every_format(tmp_path, name, dtype):
  bits = np.random.default_rng(0).integers(1, 3, 240, dtype=np.uint8)
  array = bits.astype(dtype).reshape(2, 120)
  FORMATS[name](tmp_path / name, {'w': array})
  loaded = checkpoint.load(tmp_path / name)['w']
  assert loaded.dtype == np.dtype(dtype)
  assert loaded.tobytes() == array.tobytes()


@pytest.mark.parametrize('name', FORMATS)
def test_values_that_are_not_finite_are_named(tmp_path, name):
  array = np.ones((2, 3), np.float32)
  array[1, 2] = np.nan
  if name == 'a.safetensors':
    checkpoint.save(tmp_path / name, {'w': array}, check_finite=False)
  else:
    FORMATS[name](tmp_path / name, {'w': array})
  with pytest.raises(ValueError, match=r"leaf 'w' of .* is nan at \[1, 2\]"):
    checkpoint.load(tmp_path / name)
  loaded = checkpoint.load(tmp_path / name, check_finite=False)
  assert loaded['w'].tobytes() == array.tobytes()


@pytest.mark.parametrize('name', FORMATS)
def test_truncated_files_raise_one_line(tmp_path, name):
  file = tmp_path / name
  FORMATS[name](file, ARRAYS)
  whole = file.read_bytes()
  for cut in range(0, len(whole), max(len(whole) // 100, 1)):
    file.write_bytes(whole[:cut])
    message = ''
    try:
      checkpoint.load(file)
    except ValueError as error:
      message = str(error)
    # Padding at the end of a GGUF file may be cut.
    assert message or name == 'a.gguf'
    assert len(message.splitlines()) <= 1


@pytest.mark.parametrize('name', list(FORMATS)[1:])
def test_mutated_files_leak_no_other_error(tmp_path, name):
  rng = np.random.default_rng(1)
  file = tmp_path / name
  FORMATS[name](file, ARRAYS)
  whole = file.read_bytes()
  for _ in range(300):
    mutated = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
      mutated[rng.integers(len(mutated))] = rng.integers(256)
    file.write_bytes(mutated)
    message = ''
    try:
      tree.read(checkpoint.load(file, lazy=True, check_finite=False))
    except (ValueError, MemoryError) as error:
      message = str(error)
    assert len(message.splitlines()) <= 1


def test_npz_in_any_order_and_packed(tmp_path):
  array = np.arange(12.0).reshape(3, 4)
  np.savez_compressed(
    tmp_path / 'a.npz',
    packed=array,
    fortran=np.asfortranarray(array),
    swapped=array.astype('>f4'),
    reversed=array[::-1].astype('>i2'),
  )
  np.savez(
    tmp_path / 'b.npz', f=np.asfortranarray(array), s=array.astype('>c8')
  )
  a, b = (checkpoint.load(tmp_path / name) for name in ('a.npz', 'b.npz'))
  np.testing.assert_array_equal(a['packed'], array)
  np.testing.assert_array_equal(a['fortran'], array)
  np.testing.assert_array_equal(a['swapped'], array)
  np.testing.assert_array_equal(a['reversed'], array[::-1])
  np.testing.assert_array_equal(b['f'], array)
  np.testing.assert_array_equal(b['s'], array)
  assert (a['swapped'].dtype, b['s'].dtype) == (np.float32, np.complex64)
  assert a['swapped'].dtype.isnative


@pytest.mark.parametrize(
  ('array', 'message'),
  [
    (np.asarray(['a']), 'no number: leave it out'),
    (np.asarray([{}], object), "dtype '.O', which is no number"),
    (np.ones(2, jnp.bfloat16), 'view it as bfloat16'),
    (np.zeros(1, [('a', 'f4')]), 'no number'),
    (np.ones(1, np.longdouble), 'no number'),
    (np.ones(1, 'M8[s]'), 'no number'),
  ],
)
def test_npz_of_other_values_is_refused(tmp_path, array, message):
  np.savez(tmp_path / 'a.npz', w=array)
  with pytest.raises(ValueError, match=f"leaf 'w' of .*{message}"):
    checkpoint.load(tmp_path / 'a.npz', lazy=True)


def test_npz_whose_header_is_no_array(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
    archive.writestr('w.npy', b'content')
  with pytest.raises(ValueError, match="header of array 'w' is malformed"):
    checkpoint.load(tmp_path / 'a.npz')


def test_msgpack_keeps_the_tree_of_flax(tmp_path):
  state = {
    'params': {'dense': {'kernel': np.ones((2, 3), jnp.bfloat16)}},
    'step': 7,
    'rate': 0.5,
    'scale': np.float16(2),
    'phase': 1j,
    'none': None,
    'flag': True,
    'name': 'x',
    'list': [np.zeros(1), np.ones(2)],
  }
  file = tmp_path / 'a.msgpack'
  file.write_bytes(serialization.to_bytes(state))
  loaded = checkpoint.load(file)
  want = serialization.msgpack_restore(file.read_bytes())
  assert loaded['params']['dense']['kernel'].dtype == jnp.bfloat16
  assert loaded['scale'].dtype == np.float16
  assert loaded['name'] == 'x'
  assert loaded['none'] is None
  for name, leaf in tree.named(want).items():
    np.testing.assert_array_equal(tree.named(loaded)[name], leaf)
  inner = checkpoint.load(file, item='params')
  assert inner['dense']['kernel'].shape == (2, 3)


def test_msgpack_of_arrays_in_chunks(tmp_path, monkeypatch):
  monkeypatch.setattr(serialization, 'MAX_CHUNK_SIZE', 40)
  state = {'a': np.arange(30.0).reshape(5, 6), 'b': {'c': np.arange(3)}}
  file = tmp_path / 'a.msgpack'
  file.write_bytes(serialization.msgpack_serialize(state))
  assert b'chunked' in file.read_bytes()
  loaded = tree.read(checkpoint.load(file, lazy=True))
  np.testing.assert_array_equal(loaded['a'], state['a'])
  np.testing.assert_array_equal(loaded['b']['c'], state['b']['c'])


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'\x81\xa1a' + b'\x91' * 100_000 + b'\xc0', 'nested too deeply'),
    (b'\xdf\xff\xff\xff\xff\xa1a', 'damaged'),
    (b'\x81\xa1a\xc1', 'no msgpack'),
    (b'\x81\xa1a\xc0\xc0', 'follow its end'),
    (b'\x81\xa1a\xc4\x02ab', 'holds _?Bytes'),
    (b'\x81\xa1a\xd4\x09\x01', 'extension of type 9'),
    (b'\x82\xa1a\xc0\x01\xc0', 'keys of several types'),
    (b'\x81\xa1a\xd6\x01\x93\xc0\xc0\xc0', 'damaged'),
  ],
)
def test_malformed_msgpack(tmp_path, content, message):
  (tmp_path / 'a.msgpack').write_bytes(content)
  with pytest.raises(ValueError, match=message) as caught:
    checkpoint.load(tmp_path / 'a.msgpack')
  assert len(str(caught.value).splitlines()) == 1


def test_msgpack_of_a_wrong_size(tmp_path):
  inner = msgpack.packb([[2, 3], 'float32', b'1234'])
  content = msgpack.packb({'a': msgpack.ExtType(1, inner)})
  (tmp_path / 'a.msgpack').write_bytes(content)
  with pytest.raises(ValueError, match=r'float32\[2, 3\] has another size'):
    checkpoint.load(tmp_path / 'a.msgpack')


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'kinds': {'w': 12}}, "leaf 'w' of .* is Q4_K, a quantised .* F32"),
    ({'kinds': {'w': 99}}, "leaf 'w' of .* is of type 99"),
    ({'version': 1}, 'is a GGUF file of version 1, versions 2 and 3'),
    ({'version': 0x03000000}, 'of version 50331648'),
    ({'alignment': 0}, 'alignment is 0'),
  ],
)
def test_gguf_that_is_not_read(tmp_path, options, message):
  if options.get('alignment') == 0:
    writers.gguf(tmp_path / 'a.gguf', {'w': np.ones(2, np.float32)})
    content = (tmp_path / 'a.gguf').read_bytes()
    key = b'general.alignment\x04\x00\x00\x00'
    content = content.replace(key + b'\x20', key + b'\x00')
    (tmp_path / 'a.gguf').write_bytes(content)
  else:
    writers.gguf(tmp_path / 'a.gguf', {'w': np.ones(2, np.float32)}, **options)
  with pytest.raises(ValueError, match=message) as caught:
    checkpoint.load(tmp_path / 'a.gguf')
  assert len(str(caught.value).splitlines()) == 1


def test_gguf_metadata_and_alignment(tmp_path):
  arrays = {'a': np.arange(3, dtype=np.int8), 'b': np.ones((2, 2), np.float32)}
  writers.gguf(tmp_path / 'a.gguf', arrays, alignment=128)
  loaded = checkpoint.load(tmp_path / 'a.gguf')
  assert loaded['a'].tolist() == [0, 1, 2]
  assert loaded['b'].tolist() == [[1, 1], [1, 1]]
  assert checkpoint.metadata(tmp_path / 'a.gguf') == {'general.name': 'tiny'}


def test_the_suffix_does_not_matter(tmp_path):
  buffer = io.BytesIO()
  np.savez(buffer, w=np.ones(2))
  (tmp_path / 'model.safetensors').write_bytes(buffer.getvalue())
  assert checkpoint.load(tmp_path)['w'].tolist() == [1, 1]
