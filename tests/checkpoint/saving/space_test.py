"""Full disks: found before the first byte, or the old checkpoint stays."""

import errno
import os
import resource
import shutil
from typing import NamedTuple

import numpy as np
import pytest

from tests.checkpoint.saving.targets_test import contents
from wsl import checkpoint, tree
from wsl.checkpoint._write import flush


class Usage(NamedTuple):
  total: int
  used: int
  free: int


def _raises_full(folder, params, match, **options):
  before = contents(folder)
  with pytest.raises(OSError, match=match) as caught:
    checkpoint.save(folder, params, **options)
  assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
  assert '\n' not in str(caught.value)
  assert contents(folder) == before


@pytest.mark.parametrize('shard_bytes', [None, 1])
def test_space_is_checked_before_anything_is_read(
  tmp_path, monkeypatch, shard_bytes
):
  def read():
    raise AssertionError('read')

  usage = Usage(1 << 30, 0, 1 << 20)
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
  checkpoint.save(tmp_path, {'a': np.ones(3)})
  large = tree.Stored(read, (1 << 20,), np.dtype('float32'))
  _raises_full(
    tmp_path,
    {'a': large},
    r'needs 4\.0 MiB and 1\.0 MiB are available: nothing was written',
    shard_bytes=shard_bytes,
  )


@pytest.mark.parametrize('shard_bytes', [None, 1])
@pytest.mark.parametrize('layout', [None, 1])
def test_a_disk_that_fills_in_the_middle(
  tmp_path, monkeypatch, shard_bytes, layout
):
  checkpoint.save(tmp_path, {'a': np.ones(3)}, shard_bytes=layout)
  params = {f'{i}': np.full(1000, i, np.float32) for i in range(5)}
  write = os.write
  # The header and some of the leaves fit.
  for room in (0, 100, 5_000, 15_000):
    left = [room]

    def full(file, data, left=left):
      if len(data) > left[0]:
        data = data[: left[0]]
        if not data:
          raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      left[0] -= len(data)
      return write(file, data)

    with monkeypatch.context() as patch:
      patch.setattr(os, 'write', full)
      _raises_full(
        tmp_path,
        params,
        'cannot be written, no space left on device: what was there is unch',
        shard_bytes=shard_bytes,
      )
  checkpoint.save(tmp_path, params, shard_bytes=shard_bytes)
  assert checkpoint.load(tmp_path)['4'][0] == 4


def test_a_file_that_grows_beyond_its_limit(tmp_path):
  checkpoint.save(tmp_path, {'a': np.ones(3)}, shard_bytes=1)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (13_000, hard))
  try:
    # The leaves fit, and the index does not.
    leaves = {f'leaf_{i:03d}': np.ones(1) for i in range(40)}
    params = {'a': leaves, 'long' * 40: leaves}
    for shard_bytes in (None, 8):
      _raises_full(
        tmp_path,
        {**params, 'b': np.ones(1 << 12)} if shard_bytes is None else params,
        'cannot be written, file too large',
        shard_bytes=shard_bytes,
      )
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_error_of_a_reader_is_not_taken_for_one_of_the_disk(tmp_path):
  def read():
    raise OSError(errno.EIO, 'the input is broken')

  leaf = tree.Stored(read, (2,), np.dtype('float64'))
  with pytest.raises(OSError, match='the input is broken'):
    checkpoint.save(tmp_path, {'a': leaf})
  assert not any(tmp_path.iterdir())


def test_a_disk_that_fails_while_it_is_flushed(tmp_path, monkeypatch):
  checkpoint.save(tmp_path, {'a': np.ones(3)})
  monkeypatch.setattr(flush, '_PASS', 1 << 20)
  params = {f'{i}': np.zeros(1 << 18) for i in range(4)}
  fsync, calls = os.fsync, []

  # The system reports a failed write to one call only.
  def fail_once(file):
    calls.append(file)
    if len(calls) == 1:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fsync(file)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', fail_once)
    _raises_full(tmp_path, params, 'cannot be written, no space left')
  calls.clear()
  monkeypatch.setattr(os, 'fsync', lambda file: calls.append(fsync(file)))
  checkpoint.save(tmp_path, params)
  assert len(calls) > 2
  assert checkpoint.load(tmp_path)['3'].size == 1 << 18
