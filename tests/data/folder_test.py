"""Folders of NPZ and IDX files, and errors for damaged ones."""

import gzip
import pathlib
import struct

import numpy as np
import pytest

from wsl import data

KEYS = ('train_x', 'train_y', 'test_x', 'test_y')
IDX = (
  'train-images-idx3-ubyte',
  'train-labels-idx1-ubyte',
  't10k-images-idx3-ubyte',
  't10k-labels-idx1-ubyte',
)


def arrays(count=6, side=4):
  rng = np.random.default_rng(0)
  image = lambda n: rng.integers(0, 256, (n, side, side), np.uint8)
  label = lambda n: rng.integers(0, 3, n, np.uint8)
  return dict(zip(KEYS, (image(count), label(count), image(2), label(2))))


def idx_bytes(x):
  head = struct.pack('>BBBB', 0, 0, 8, x.ndim)
  return head + struct.pack(f'>{x.ndim}I', *x.shape) + x.tobytes()


def write_idx(place, parts, zipped):
  place.mkdir(parents=True, exist_ok=True)
  for name, key in zip(IDX, KEYS):
    raw = idx_bytes(parts[key])
    if zipped:
      (place / f'{name}.gz').write_bytes(gzip.compress(raw))
    else:
      (place / name).write_bytes(raw)


def equal(task, parts):
  np.testing.assert_array_equal(task.train.x, parts['train_x'])
  np.testing.assert_array_equal(task.train.y, parts['train_y'])
  np.testing.assert_array_equal(task.test.x, parts['test_x'])
  np.testing.assert_array_equal(task.test.y, parts['test_y'])
  assert task.train.x.dtype == np.uint8
  assert task.train.y.dtype == np.int32


@pytest.mark.parametrize('zipped', [False, True])
def test_idx_files_of_a_folder_and_of_folders_in_it(tmp_path, zipped):
  parts = arrays()
  write_idx(tmp_path / 'a', parts, zipped)
  write_idx(tmp_path / 'b', parts, zipped)
  equal(data.folder(tmp_path / 'a')['a'], parts)
  both = data.folder(tmp_path)
  assert list(both) == ['a', 'b']
  equal(both['b'], parts)


def test_idx_of_other_types_and_names(tmp_path):
  parts = arrays()
  write_idx(tmp_path, parts, False)
  wide = np.asarray([[1, -2], [300, 4]] * 3, '>i2').reshape(6, 2, 1)
  raw = struct.pack('>BBBB3I', 0, 0, 0x0B, 3, 6, 2, 1) + wide.tobytes()
  (tmp_path / IDX[0]).unlink()
  (tmp_path / 'train-images.idx3-ubyte').write_bytes(raw)
  x = data.folder(tmp_path)[tmp_path.name].train.x
  assert x.dtype == np.int16
  assert x[1].ravel().tolist() == [300, 4]


def test_npz_with_many_tasks_or_one(tmp_path):
  parts = arrays()
  both = {f'{t}/{k}': v for t in ('b', 'a') for k, v in parts.items()}
  np.savez_compressed(tmp_path / 'suite.npz', **both)
  np.savez(tmp_path / 'single.npz', **parts)
  equal(data.folder(tmp_path / 'suite.npz')['b'], parts)
  found = data.folder(tmp_path)
  assert list(found) == ['a', 'b', 'single']
  equal(found['single'], parts)
  assert list(data.folder(tmp_path, tasks=['b', 'a'])) == ['b', 'a']


def test_only_the_requested_tasks_are_read(tmp_path):
  np.savez(tmp_path / 'good.npz', **arrays())
  np.savez(tmp_path / 'bad.npz', train_x=np.zeros(3))
  equal(data.folder(tmp_path, tasks=['good'])['good'], arrays())
  with pytest.raises(ValueError, match=r"has no array 'train_y'"):
    data.folder(tmp_path)


def test_a_missing_folder_raises_one_line(tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    data.folder(tmp_path / 'nowhere')
  text = str(error.value)
  assert str(tmp_path / 'nowhere') in text
  assert 'TASK/train_x' in text
  assert 'give another path' in text
  assert '\n' not in text
  with pytest.raises(FileNotFoundError, match=r'no task in .*expected'):
    data.folder(tmp_path)


def test_an_unknown_task_raises_with_the_nearest_name(tmp_path):
  np.savez(tmp_path / 'fashion.npz', **arrays())
  with pytest.raises(ValueError, match="did you mean 'fashion'"):
    data.folder(tmp_path, tasks=['fashon'])


def test_an_incomplete_idx_folder_names_the_missing_file(tmp_path):
  write_idx(tmp_path, arrays(), False)
  (tmp_path / IDX[3]).unlink()
  with pytest.raises(FileNotFoundError, match='t10k-labels'):
    data.folder(tmp_path)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda raw: raw[:-3], 'needs 96 bytes, it has 93'),
    (lambda raw: b'PNG!' + raw[4:], 'begins with 504e4721'),
    (lambda raw: b'', 'begins with nothing'),
    (lambda raw: raw[:9], 'ends within its 3 sizes'),
  ],
)
def test_a_damaged_idx_file_is_named(tmp_path, damage, message):
  write_idx(tmp_path, arrays(), False)
  file = tmp_path / IDX[0]
  file.write_bytes(damage(file.read_bytes()))
  with pytest.raises(ValueError, match=f'{IDX[0]} is not a whole.*{message}'):
    data.folder(tmp_path)


def test_a_damaged_gz_file_is_named(tmp_path):
  write_idx(tmp_path, arrays(), True)
  file = tmp_path / f'{IDX[0]}.gz'
  file.write_bytes(file.read_bytes()[:-12])
  with pytest.raises(ValueError, match=f'{IDX[0]}.gz is not a whole IDX'):
    data.folder(tmp_path)


def test_a_damaged_npz_file_is_named(tmp_path):
  file = tmp_path / 'a.npz'
  np.savez(file, **arrays())
  whole = file.read_bytes()
  file.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match=r'a\.npz cannot be read as \.npz'):
    data.folder(tmp_path)
  middle = len(whole) // 4
  flipped = bytes(b ^ 255 for b in whole[middle : middle + 40])
  file.write_bytes(whole[:middle] + flipped + whole[middle + 40 :])
  with pytest.raises(ValueError, match=r'a\.npz'):
    data.folder(tmp_path)


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('train_y', np.zeros(5, int), r"'a': train_x is \[6, 4, 4\] and .*\[5\]"),
    ('test_y', np.asarray([0.5, 1.0]), 'test_y must hold integers >= 0'),
    ('test_y', np.asarray([-1, 1]), 'least value -1'),
    ('train_x', np.full((6, 4, 4), np.nan), 'train_x must hold finite'),
  ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, key, value, message):
  np.savez(tmp_path / 'a.npz', **{**arrays(), key: value})
  with pytest.raises(ValueError, match=message):
    data.folder(pathlib.Path(tmp_path, 'a.npz'))
