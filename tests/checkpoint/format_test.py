"""Both directions against the published safetensors package."""

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors import numpy as published

from tests.checkpoint import dtypes
from wsl import checkpoint


def _leaves(dtype):
  return {
    'matrix': np.arange(1, 7).reshape(2, 3).astype(dtype),
    'scalar': np.asarray(1, dtype),
    'empty': np.zeros((0, 3), dtype),
    'transposed': np.arange(1, 7).reshape(2, 3).astype(dtype).T,
  }


def _assert_same(got, want):
  assert got.keys() == want.keys()
  for name, x in want.items():
    assert got[name].dtype == x.dtype
    assert got[name].shape == x.shape
    assert got[name].tobytes() == x.tobytes()


@pytest.mark.parametrize('dtype', dtypes.ALL)
def test_the_package_reads_what_we_write(tmp_path, dtype):
  leaves, file = _leaves(dtype), tmp_path / 'a.safetensors'
  checkpoint.save(file, leaves, metadata={'format': 'np', 'süß': '甘い'})
  read = dict(safetensors.deserialize(file.read_bytes()))
  assert {name: x['shape'] for name, x in read.items()} == {
    'matrix': [2, 3],
    'scalar': [],
    'empty': [0, 3],
    'transposed': [3, 2],
  }
  for name, x in leaves.items():
    assert bytes(read[name]['data']) == x.tobytes()
  with safetensors.safe_open(file, 'np') as opened:
    assert opened.metadata()['format'] == 'np'
    assert opened.metadata()['süß'] == '甘い'


@pytest.mark.parametrize('dtype', dtypes.ALL)
def test_we_read_what_the_package_writes(tmp_path, dtype):
  leaves, file = _leaves(dtype), tmp_path / 'a.safetensors'
  leaves = {name: np.array(x, order='C') for name, x in leaves.items()}
  published.save_file(leaves, file, metadata={'format': 'np'})
  _assert_same(checkpoint.load(file), leaves)
  assert checkpoint.metadata(file) == {'format': 'np'}


@pytest.mark.parametrize('dtype', dtypes.ALL)
def test_own_round_trip_is_exact(tmp_path, dtype):
  leaves, file = _leaves(dtype), tmp_path / 'a.safetensors'
  checkpoint.save(file, leaves)
  _assert_same(checkpoint.load(file), leaves)


def test_every_tensor_lies_on_a_multiple_of_its_items(tmp_path):
  file = tmp_path / 'a.safetensors'
  checkpoint.save(
    file, {'a': np.zeros(3, np.int8), 'b': np.zeros(5), 'c': np.zeros(1, 'f2')}
  )
  content = file.read_bytes()
  start = 8 + int.from_bytes(content[:8], 'little')
  assert start % 64 == 0
  assert list(published.load(content)) is not None
  # Widest first: 40 bytes of b, 2 of c, 3 of a.
  assert len(content) == start + 45
  header = content[8:start].decode()
  assert header.index('"b"') < header.index('"c"') < header.index('"a"')


def test_an_empty_tree_is_a_file(tmp_path):
  checkpoint.save(tmp_path / 'a.safetensors', {})
  assert checkpoint.load(tmp_path / 'a.safetensors') == {}
  assert published.load_file(tmp_path / 'a.safetensors') == {}


def test_a_single_array_is_a_tree(tmp_path):
  checkpoint.save(tmp_path / 'a.safetensors', np.arange(3))
  assert checkpoint.load(tmp_path / 'a.safetensors').tolist() == [0, 1, 2]


@pytest.mark.parametrize(
  ('leaf', 'message'),
  [
    (np.zeros(2, np.complex128), "leaf 'a' has dtype complex128"),
    (np.zeros(2, ml_dtypes.int4), "leaf 'a' has dtype int4.* cast it"),
    (np.zeros(2, '>f4'), "leaf 'a' has dtype >f4"),
    (
      jax.random.key(0),
      r"leaf 'a' has dtype key.* save its jax.random",
    ),
    (np.asarray('text'), "leaf 'a' has dtype <U4.* metadata="),
  ],
)
def test_a_dtype_that_is_not_in_the_format(tmp_path, leaf, message):
  with pytest.raises(ValueError, match=message):
    checkpoint.save(tmp_path / 'a.safetensors', {'a': leaf})
  assert not any(tmp_path.iterdir())


def test_a_name_that_is_no_text_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"the name 'a.ud800' is no Unicode"):
    checkpoint.save(tmp_path / 'a.safetensors', {'a\ud800': np.zeros(2)})
  assert not any(tmp_path.iterdir())
