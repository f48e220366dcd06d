"""PyTorch's files: tensors and containers are read, and no code is run."""

import pathlib
import re
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from tests.checkpoint.readers import writers
from wsl import checkpoint, tree

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden' / 'torch'
BIG = np.arange(24, dtype=np.float32)
VIEWS = {
  'v.slice': BIG[6:18].reshape(3, 4),
  'v.transposed': BIG.reshape(4, 6).T,
  'v.step': BIG[1::3],
  'v.permuted': BIG.reshape(2, 3, 4).transpose(2, 0, 1),
  'v.expanded': np.full(5, 3, np.float32),
  'v.scalar': np.float32(7),
  'v.empty': np.zeros((0, 3), np.float32),
  'v.parameter': BIG[:4],
}
WRITE = {'zip': writers.torch_zip, 'legacy': writers.torch_legacy}


@pytest.mark.parametrize('kind', ['state', 'legacy'])
@pytest.mark.parametrize('lazy', [False, True])
def test_files_of_pytorch_itself(kind, lazy):
  """The files were written by torch 2.9; each dtype holds 0 to 5."""
  loaded = tree.read(checkpoint.load(GOLDEN / f'{kind}.pt', lazy=lazy))
  six = np.arange(6).reshape(2, 3)
  dtypes = 0
  for name, value in loaded.items():
    family, _, what = name.partition('.')
    if family == 'v':
      want, dtype = VIEWS[name], np.dtype(np.float32)
    else:
      dtypes += 1
      dtype = np.dtype(getattr(ml_dtypes, what, what))
      want = (six % 2 == 0) if what == 'bool' else six.astype(dtype)
      want = six + 1j if dtype.kind == 'c' else want
    assert value.dtype == dtype, name
    assert value.flags.c_contiguous
    np.testing.assert_array_equal(value, want, err_msg=name)
  assert dtypes == {'state': 19, 'legacy': 12}[kind]
  assert set(VIEWS) <= set(loaded)


def test_a_training_run_of_pytorch():
  loaded = checkpoint.load(GOLDEN / 'run.pt')
  assert loaded['epoch'] == 3
  assert loaded['epoch'].dtype == np.int64
  assert loaded['lr'] == 0.1
  assert loaded['name'] == 'x'
  assert loaded['dtype'] == 'torch.float16'
  assert loaded['none'] is None
  assert loaded['optimizer']['state'][0]['exp_avg'].shape == (2, 3)
  weights = checkpoint.load(GOLDEN / 'run.pt', item='state_dict', lazy=True)
  assert weights.keys() == {'weight', 'bias'}
  moments = checkpoint.load(GOLDEN / 'run.pt', item='optimizer/param_groups')
  assert moments[0]['betas'] == (0.9, 0.999)
  with pytest.raises(
    FileNotFoundError, match=r"item='ema'.*\['state_dict', 'op"
  ):
    checkpoint.load(GOLDEN / 'run.pt', item='ema')


def test_a_module_is_refused_by_the_name_of_its_class():
  with pytest.raises(
    ValueError, match=r"'torch.nn.modules.linear.Linear': only"
  ):
    checkpoint.load(GOLDEN / 'module.pt')


@pytest.mark.parametrize('kind', WRITE)
def test_shared_storages_and_chunks(tmp_path, kind):
  storage = np.arange(12, dtype=np.int16)
  content = {
    'a': writers.Tensor(storage, (2, 3), (3, 1), 2),
    'b': writers.Tensor(storage, (3, 2), (1, 3), 2),
    'c': [writers.whole(np.arange(5.0)), 'text', None, 2, (True,)],
  }
  WRITE[kind](tmp_path / 'a.bin', content)
  loaded = checkpoint.load(tmp_path / 'a.bin', lazy=True)
  want = np.arange(2, 8).reshape(2, 3)
  np.testing.assert_array_equal(tree.read(loaded['a']), want)
  np.testing.assert_array_equal(tree.read(loaded['b']), want.T)
  out = np.zeros(2, np.int16)
  loaded['a'].read_into(3, out)
  assert out.tolist() == [5, 6]
  assert loaded['b'].read_into is None
  assert tree.read(loaded['c'][0]).tolist() == [0, 1, 2, 3, 4]
  assert loaded['c'][1:] == ['text', None, 2, (True,)]


def test_a_merge_streams_from_pytorch(tmp_path):
  for i in range(2):
    array = np.full((3, 4), float(i), np.float32)
    writers.torch_zip(tmp_path / f'{i}.pt', {'w': writers.whole(array)})
  lazy = [checkpoint.load(tmp_path / f'{i}.pt', lazy=True) for i in range(2)]
  checkpoint.save(tmp_path / 'out', tree.map(_mean, *lazy))
  assert (checkpoint.load(tmp_path / 'out')['w'] == 0.5).all()


def _mean(x, y):
  return (x + y) / 2


def _refused(tmp_path, pickle):
  writers.torch_zip(tmp_path / 'a.pt', {}, pickle=pickle)
  with pytest.raises(ValueError, match=r'a\.pt (is|holds|has)') as caught:
    checkpoint.load(tmp_path / 'a.pt')
  text = str(caught.value)
  assert len(text.splitlines()) == 1
  return text.replace(str(tmp_path), '')


@pytest.mark.parametrize(
  ('module', 'name'),
  [
    ('os', 'system'),
    ('posix', 'system'),
    ('builtins', 'eval'),
    ('__builtin__', 'eval'),
    ('torch', 'load'),
    ('torch.hub', 'load'),
    ('collections', 'OrderedDict.update'),
    ('numpy.core.multiarray', '_reconstruct'),
    ('wsl.checkpoint', 'save'),
  ],
)
def test_a_pickle_that_runs_code_is_refused(tmp_path, module, name):
  marker = tmp_path / 'ran'
  call = writers.Call(module, name, (f'touch {marker}',))
  text = _refused(tmp_path, writers.pickled({'a': call}, {}))
  assert f"asks for '{module}.{name}': only" in text
  assert len(text) < 200
  # The same by protocol 4, and in a file before PyTorch 1.6.
  strings = b''.join(
    b'\x8c' + bytes([len(x)]) + x.encode() for x in (module, name)
  )
  text = _refused(tmp_path, b'\x80\x04' + strings + b'\x93)R.')
  assert f"'{module}.{name}'" in text
  writers.torch_legacy(tmp_path / 'b.pt', {'a': call})
  with pytest.raises(ValueError, match=f"'{module}.{name}'"):
    checkpoint.load(tmp_path / 'b.pt')
  assert not marker.exists()


_V2 = b'ctorch._utils\n_rebuild_tensor_v2\n'


def _doubled(depth, kind=b'e'):
  """A list of two lists of two lists ...: each node is pushed once."""
  program = b'\x80\x02]q\x00'
  for i in range(depth):
    old, new = bytes([i]), bytes([i + 1])
    if kind == b'e':
      program += b'](h' + old + b'h' + old + b'eq' + new
    else:
      program += b'h' + old + b'h' + old + b'\x86q' + new
  return program


@pytest.mark.parametrize(
  ('program', 'message'),
  [
    (b'\x80\x02', 'damaged'),
    (b'\x80\x02}', 'damaged'),
    (b'\x80\x02.', 'pickle is malformed'),
    (b'\x80\x02(.', 'damaged|holds'),
    (b'\x80\x02h\x05.', 'pickle is malformed'),
    (b'\x80\x02NNR.', 'pickle is malformed'),
    (b'\x80\x02}X\x01\x00\x00\x00aNNs.', 'pickle is malformed'),
    (b'\x80\x02}(Nu.', 'damaged'),
    (b'\x80\x02}(]Nu.', 'pickle is malformed'),
    (b'\x80\x02N' + b'r\xff\xff\xff\x7f' + b'0.', 'instruction POP:'),
    (b'\x80\x02\x82\x01.', 'instruction EXT1:'),
    (b'\x80\x02' + b']q\x00h\x00a.', 'one container many'),
    (b'\x80\x02' + b']' * 100_000 + b'a' * 99_999 + b'.', 'nested too deeply'),
    (_doubled(60) + b'.', 'one container many times'),
    (b'\x80\x02}' + _doubled(60, b't')[2:] + b'Ns.', 'pickle is malformed'),
    (_doubled(60, b't') + _doubled(60, b't')[2:] + b'\x93.', 'malformed'),
    (b'\x80\x02' + _V2 + b')R.', 'pickle is malformed'),
    (b'\x80\x02' + _V2 + b'}b.', 'pickle is malformed'),
    (b'\x80\x02' + _V2 + b'X\x01\x00\x00\x00aQ.', 'damaged'),
    (b'\x80\x02\x8a\xff' + b'\x7f' * 255 + b'.', '64 bits'),
    (b'\x80\x02B\x02\x00\x00\x00ab.', 'holds bytes'),
    (b'\x80\x02}(X\x01\x00\x00\x00aNK\x01Nu.', 'keys of several types'),
  ],
)
def test_malformed_pickles(tmp_path, program, message):
  text = _refused(tmp_path, program)
  assert re.search(message, text), text
  assert len(text) < 220


def _tensor(size, shape, strides, offset=0, dtype=np.float32):
  return writers.Tensor(np.zeros(size, dtype), shape, strides, offset)


@pytest.mark.parametrize(
  ('tensor', 'message'),
  [
    (_tensor(4, (5,), (1,)), 'beyond its storage'),
    (_tensor(4, (2, 2), (3, 1)), 'beyond its storage'),
    (_tensor(4, (2,), (1,), 3), 'beyond its storage'),
    (_tensor(4, (2, 2), (1,)), 'beyond its storage'),
    (_tensor(4, (-1,), (1,)), 'malformed'),
    (_tensor(4, (2,), (-1,)), 'malformed'),
    (_tensor(4, (2.0,), (1,)), 'malformed'),
    (_tensor(4, (1 << 40, 1 << 40), (0, 0)), 'beyond 64 bits'),
  ],
)
def test_tensors_beyond_their_storage(tmp_path, tensor, message):
  for write in WRITE.values():
    write(tmp_path / 'a.pt', [tensor])
    with pytest.raises(ValueError, match=message) as caught:
      checkpoint.load(tmp_path / 'a.pt', lazy=True)
    assert len(str(caught.value).splitlines()) == 1


def test_damaged_files(tmp_path):
  file = tmp_path / 'a.pt'
  content = {'a': writers.whole(np.arange(100.0))}
  for write in WRITE.values():
    write(file, content)
    whole = file.read_bytes()
    for cut in range(0, len(whole), max(len(whole) // 40, 1)):
      file.write_bytes(whole[:cut])
      with pytest.raises(ValueError, match=r'a\.pt (is|holds|has)') as caught:
        checkpoint.load(file, lazy=True)
      assert len(str(caught.value).splitlines()) == 1
  writers.torch_zip(file, content, order='big')
  with pytest.raises(ValueError, match='big-endian'):
    checkpoint.load(file)
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('a/data.pkl', writers.pickled({}, {}))
  with pytest.raises(ValueError, match='compressed'):
    checkpoint.load(file)


def test_a_storage_that_is_missing(tmp_path):
  program = writers.pickled([writers.whole(np.ones(2))], {})
  writers.torch_zip(tmp_path / 'a.pt', {}, pickle=program)
  with pytest.raises(ValueError, match="leaf '0' is cut or missing"):
    checkpoint.load(tmp_path / 'a.pt', lazy=True)


def test_not_finite(tmp_path):
  storage = np.asarray([0, 1, np.inf, 3], np.float32)
  view = writers.Tensor(storage, (2, 2), (1, 2))
  writers.torch_zip(tmp_path / 'a.pt', {'w': view})
  lazy = checkpoint.load(tmp_path / 'a.pt', lazy=True)
  with pytest.raises(ValueError, match=r"leaf 'w' of .* is inf at \[0, 1\]"):
    tree.read(lazy)
  loaded = checkpoint.load(tmp_path / 'a.pt', check_finite=False)
  assert loaded['w'].tolist() == [[0, np.inf], [1, 3]]


def test_mutated_pickles_never_leak_other_errors(tmp_path):
  rng = np.random.default_rng(0)
  storages = {}
  content = {'a': writers.whole(np.ones(3)), 'b': [1, 2.0, 'c', (None,)]}
  program = bytearray(writers.pickled(content, storages))
  file = tmp_path / 'a.pt'
  for _ in range(400):
    mutated = bytearray(program)
    for _ in range(rng.integers(1, 4)):
      mutated[rng.integers(2, len(mutated))] = rng.integers(256)
    writers.torch_zip(file, {}, pickle=bytes(mutated))
    with zipfile.ZipFile(file, 'a') as archive:
      archive.writestr('archive/data/0', struct.pack('<3d', 1, 1, 1))
    message = ''
    try:
      checkpoint.load(file, lazy=True)
    except ValueError as error:
      message = str(error)
    assert len(message.splitlines()) <= 1
    assert len(message) < 400


def test_weights_beside_objects_are_chosen_by_item(tmp_path):
  """As in a checkpoint of Lightning; nothing of the objects is made."""
  marker = tmp_path / 'ran'
  content = {
    'state_dict': {'w': writers.whole(np.ones(2))},
    'callbacks': [writers.Call('os', 'system', (f'touch {marker}',))],
    'best': writers.Call('numpy.core.multiarray', 'scalar', ('f8', 'x')),
  }
  for write in WRITE.values():
    write(tmp_path / 'a.ckpt', content)
    with pytest.raises(ValueError, match=r"asks for 'os\.system'.*by item="):
      checkpoint.load(tmp_path / 'a.ckpt')
    loaded = checkpoint.load(tmp_path / 'a.ckpt', item='state_dict')
    assert loaded['w'].tolist() == [1, 1]
    for item, name in (('callbacks', 'os.system'), ('best', 'numpy.core')):
      with pytest.raises(ValueError, match=f"asks for '{name}"):
        checkpoint.load(tmp_path / 'a.ckpt', item=item)
  assert not marker.exists()


def test_objects_of_unknown_classes_stay_opaque(tmp_path):
  """A dict subclass with items and attributes, by NEWOBJ and BUILD."""
  odd = b'clib\nDict\n)\x81}b(X\x01\x00\x00\x00kK\x01u'
  program = b'\x80\x02}(X\x01\x00\x00\x00h' + odd
  program += b'X\x01\x00\x00\x00w](K\x01K\x02eu.'
  writers.torch_zip(tmp_path / 'a.pt', {}, pickle=program)
  with pytest.raises(ValueError, match=r"asks for 'lib\.Dict'"):
    checkpoint.load(tmp_path / 'a.pt')
  assert checkpoint.load(tmp_path / 'a.pt', item='w') == [1, 2]
