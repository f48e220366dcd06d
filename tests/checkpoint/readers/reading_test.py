"""Reading: chunks of large leaves, many threads, few open files."""

import concurrent.futures
import gc
import os
import pathlib

import numpy as np
import pytest

from tests.checkpoint.readers import formats_test
from wsl import checkpoint, deltas, merge, tree
from wsl.checkpoint._read import file_bytes


@pytest.mark.parametrize('name', formats_test.FORMATS)
def test_merges_of_large_leaves_are_those_in_memory(tmp_path, name):
  """A leaf of 2.4 MB is read in chunks."""
  rng = np.random.default_rng(0)
  for i in range(3):
    arrays = {
      'w': rng.normal(size=(500, 1200)).astype(np.float32),
      'b': rng.normal(size=3).astype(np.float32),
    }
    (tmp_path / f'{i}').mkdir()
    formats_test.FORMATS[name](tmp_path / f'{i}' / name, arrays)

  def merged(lazy):
    base, *models = [
      checkpoint.load(tmp_path / f'{i}', lazy=lazy) for i in range(3)
    ]
    return deltas.apply(base, merge.mean(deltas.stack(base, models)), coef=0.5)

  checkpoint.save(tmp_path / 'out', merged(lazy=True))
  got, want = checkpoint.load(tmp_path / 'out'), merged(lazy=False)
  for key in want:
    np.testing.assert_array_equal(got[key], want[key])


def _open_in(folder):
  """Returns the number of open files of a folder."""
  links = pathlib.Path('/proc/self/fd').iterdir()
  return sum(
    os.readlink(link).startswith(f'{folder}/')
    for link in links
    if link.is_symlink()
  )


def _descriptors():
  return len(list(pathlib.Path('/proc/self/fd').iterdir()))


@pytest.mark.parametrize('kept', [0, 2, 128])
def test_threads_share_a_file(tmp_path, monkeypatch, kept):
  monkeypatch.setattr(file_bytes, '_KEPT', kept)
  arrays = {f'{i}': np.full(1000, i) for i in range(50)}
  checkpoint.save(tmp_path / 'a', arrays, shard_bytes=40_000)
  before = _descriptors()
  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    for _ in range(5):
      lazy = checkpoint.load(tmp_path / 'a', lazy=True)
      read = lambda name, lazy=lazy: (name, tree.read(lazy[name]))
      for name, value in threads.map(read, list(lazy) * 4):
        np.testing.assert_array_equal(value, arrays[name])
      assert _descriptors() <= before + 10
  del lazy, read
  assert _descriptors() <= before


def test_a_deleted_model_closes_its_files(tmp_path, monkeypatch):
  """At once: a reference cycle would wait for a garbage collection."""
  # Models of other tests may keep as many files open as are allowed.
  monkeypatch.setattr(file_bytes, '_KEPT', 10**6)
  checkpoint.save(tmp_path / 'a', {'b': [np.ones(3)], 'w': np.ones(2)})
  gc.disable()
  try:
    lazy = checkpoint.load(tmp_path / 'a', lazy=True)
    tree.read(lazy)
    assert _open_in(tmp_path) == 1
    del lazy
    assert not _open_in(tmp_path)
  finally:
    gc.enable()


def test_many_models_stay_below_the_limit_of_open_files(tmp_path, monkeypatch):
  monkeypatch.setattr(file_bytes, '_KEPT', 4)
  models = []
  for i in range(12):
    checkpoint.save(tmp_path / f'{i}.safetensors', {'w': np.full(3, i)})
    models.append(checkpoint.load(tmp_path / f'{i}.safetensors', lazy=True))
  before = _descriptors()
  for i, model in enumerate(models):
    assert tree.read(model)['w'].tolist() == [i] * 3
  assert _descriptors() <= before + 4


def test_a_file_that_is_cut_while_it_is_read(tmp_path):
  file = tmp_path / 'a.safetensors'
  checkpoint.save(file, {'w': np.zeros(100)})
  lazy = checkpoint.load(file, lazy=True)
  stamp = file.stat()
  os.truncate(file, 300)
  os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
  with pytest.raises(ValueError, match='has changed since leaf'):
    tree.read(lazy)


def test_small_leaves_of_a_file_are_read_together(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  dtypes = [np.float32, np.int8, np.float16, np.complex64, np.bool_]
  arrays = {
    f'{i}': rng.integers(0, 2, rng.integers(0, 40)).astype(dtypes[i % 5])
    for i in range(200)
  }
  checkpoint.save(tmp_path, arrays)
  reads = []
  original = file_bytes.FileBytes.read_into

  def counted(self, out, start, **options):
    reads.append(out.nbytes)
    return original(self, out, start, **options)

  monkeypatch.setattr(file_bytes.FileBytes, 'read_into', counted)
  loaded = checkpoint.load(tmp_path)
  assert len(reads) == 1
  for name, array in arrays.items():
    assert loaded[name].dtype == array.dtype
    np.testing.assert_array_equal(loaded[name], array)
