"""Where a save may write, and what it may remove there."""

import json
import os
import pathlib
import socket

import numpy as np
import pytest
from safetensors import numpy as published

from wsl import checkpoint, tree
from wsl.checkpoint._read import foreign

INDEX = 'model.safetensors.index.json'
ONE = {'a': np.ones(2)}
TWO = {'a': np.zeros(2), 'b': np.full(3, 2.0)}


def contents(folder):
  """Returns every file of a folder, with its bytes."""
  files = (path for path in folder.rglob('*') if path.is_file())
  return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_refused(folder, kind, match, *, path=None, **options):
  """A save raises one line and changes nothing."""
  before = contents(folder)
  with pytest.raises(kind, match=match) as caught:
    checkpoint.save(folder if path is None else path, ONE, **options)
  assert '\n' not in str(caught.value)
  assert contents(folder) == before


def test_shards_are_named_by_hugging_face_until_they_are_replaced(tmp_path):
  checkpoint.save(tmp_path, TWO, shard_bytes=1)
  first = {f'model-0000{i}-of-00002.safetensors' for i in (1, 2)}
  assert {path.name for path in tmp_path.iterdir()} == {*first, INDEX}
  names = {*first}
  for _ in range(3):
    checkpoint.save(tmp_path, TWO, shard_bytes=1)
    shard_of = json.loads((tmp_path / INDEX).read_text())['weight_map']
    assert names.isdisjoint(shard_of.values())
    names |= set(shard_of.values())
    present = {path.name for path in tmp_path.iterdir()}
    assert present == {*shard_of.values(), INDEX}
    for shard in shard_of.values():
      assert shard.startswith('model-')
      assert '-of-00002.safetensors' in shard
    assert checkpoint.load(tmp_path)['b'].tolist() == [2, 2, 2]


@pytest.mark.parametrize('new', [None, 8, 16])
@pytest.mark.parametrize('old', [None, 8, 16])
@pytest.mark.parametrize('resume', [False, True])
def test_a_merge_may_be_saved_over_its_inputs(tmp_path, old, new, resume):
  checkpoint.save(tmp_path, TWO, shard_bytes=old)
  lazy = checkpoint.load(tmp_path, lazy=True)
  doubled = tree.map(_double, lazy)
  checkpoint.save(tmp_path, doubled, shard_bytes=new, resume=resume)
  loaded = checkpoint.load(tmp_path)
  assert loaded['a'].tolist() == [0, 0]
  assert loaded['b'].tolist() == [4, 4, 4]


def _double(x):
  return x + x


def test_shards_do_not_replace_a_file_of_the_same_name(tmp_path):
  shard = tmp_path / 'model-00001-of-00001.safetensors'
  checkpoint.save(shard, TWO)
  before = shard.read_bytes()
  checkpoint.save(tmp_path, ONE, shard_bytes=100)
  assert shard.read_bytes() == before
  assert checkpoint.load(tmp_path).keys() == {'a'}


@pytest.mark.parametrize('shard_bytes', [None, 8])
def test_an_empty_tree(tmp_path, shard_bytes):
  for params in ({}, {'a': None}, TWO, {}):
    checkpoint.save(tmp_path, params, shard_bytes=shard_bytes)
    assert checkpoint.load(tmp_path).keys() == params.keys()
  assert len(list(tmp_path.iterdir())) == 1


def test_one_file_is_loaded_before_an_index(tmp_path):
  checkpoint.save(tmp_path, TWO, shard_bytes=1)
  checkpoint.save(tmp_path / 'model.safetensors', ONE)
  assert checkpoint.load(tmp_path).keys() == {'a'}
  assert checkpoint.load(tmp_path / INDEX).keys() == {'a', 'b'}
  checkpoint.save(tmp_path, TWO, shard_bytes=1)
  assert checkpoint.load(tmp_path).keys() == {'a', 'b'}
  assert not (tmp_path / 'model.safetensors').exists()


@pytest.mark.parametrize('shard_bytes', [None, 1])
def test_shards_of_another_program_are_not_removed(tmp_path, shard_bytes):
  published.save_file(ONE, tmp_path / 'x.safetensors', {'format': 'pt'})
  index = {'metadata': {}, 'weight_map': {'a': 'x.safetensors'}}
  (tmp_path / INDEX).write_text(json.dumps(index))
  assert_refused(
    tmp_path, ValueError, f'{INDEX}, which wsl has', shard_bytes=shard_bytes
  )


def test_one_file_of_another_program_is_replaced_and_not_removed(tmp_path):
  published.save_file(TWO, tmp_path / 'model.safetensors')
  assert_refused(
    tmp_path, ValueError, 'holds model.safetensors, which wsl', shard_bytes=1
  )
  checkpoint.save(tmp_path, ONE)
  assert checkpoint.load(tmp_path).keys() == {'a'}


@pytest.mark.parametrize('shard_bytes', [None, 1])
@pytest.mark.parametrize(
  'shard', ['config.json', '../x.safetensors', '..', '.', '', 'tokenizer.json/']
)
def test_an_index_that_names_other_files_is_not_followed(
  tmp_path, shard, shard_bytes
):
  folder = tmp_path / 'out'
  folder.mkdir()
  checkpoint.save(tmp_path / 'x.safetensors', TWO)
  (folder / 'config.json').write_text('{}')
  for metadata in ({}, {'wsl.tree': '{"a":"a"}'}):
    index = {'metadata': metadata, 'weight_map': {'a': shard}}
    (folder / INDEX).write_text(json.dumps(index))
    checkpoint.save(folder, ONE, shard_bytes=shard_bytes)
    assert checkpoint.load(folder).keys() == {'a'}
    assert (folder / 'config.json').read_text() == '{}'
    assert checkpoint.load(tmp_path / 'x.safetensors').keys() == {'a', 'b'}


def test_an_own_index_that_names_a_foreign_shard_is_refused(tmp_path):
  checkpoint.save(tmp_path, TWO, shard_bytes=1)
  shard = tmp_path / 'model-00002-of-00002.safetensors'
  published.save_file({'b': TWO['b']}, shard)
  assert_refused(tmp_path, ValueError, f'holds {shard.name}, which wsl has')
  shard.write_bytes(b'not a checkpoint')
  assert_refused(tmp_path, ValueError, f'holds {shard.name}, which wsl has')
  shard.unlink()
  checkpoint.save(tmp_path, ONE)
  assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('name', ['model.safetensors', INDEX])
def test_a_link_is_refused(tmp_path, name):
  blob = tmp_path / 'blob'
  checkpoint.save(tmp_path / 'real.safetensors', TWO)
  (tmp_path / 'real.safetensors').rename(blob)
  folder = tmp_path / 'out'
  folder.mkdir()
  (folder / name).symlink_to('../blob')
  assert_refused(
    tmp_path, ValueError, rf'{name} is a link to \.\./blob', path=folder
  )
  assert (folder / name).is_symlink()


def test_a_folder_may_be_a_link(tmp_path):
  (tmp_path / 'real').mkdir()
  (tmp_path / 'out').symlink_to('real')
  checkpoint.save(tmp_path / 'out', ONE)
  assert (tmp_path / 'out').is_symlink()
  assert checkpoint.load(tmp_path / 'real').keys() == {'a'}


def test_pipes_sockets_and_folders_are_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / 'pipe.safetensors')
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / 'folder.safetensors').mkdir()
  (tmp_path / 'file').write_text('')
  with socket.socket(socket.AF_UNIX) as server:
    server.bind(str(tmp_path / 's.safetensors'))
    for name, kind, match in [
      ('pipe.safetensors', FileExistsError, 'is a named pipe, not a file'),
      ('pipe', NotADirectoryError, 'is a named pipe: give a folder'),
      ('folder.safetensors', IsADirectoryError, 'is a folder, not a file'),
      ('file', NotADirectoryError, 'is a file: give a folder, or a file NAME'),
      ('file/out', NotADirectoryError, 'cannot be written, not a directory'),
      ('s.safetensors', FileExistsError, 'is a socket, not a file'),
    ]:
      assert_refused(tmp_path, kind, match, path=tmp_path / name)
  assert (tmp_path / 'pipe').is_fifo()


def test_a_read_only_folder(tmp_path, monkeypatch):
  checkpoint.save(tmp_path, TWO)
  if os.getuid():
    tmp_path.chmod(0o555)
  else:  # Nothing is read-only to root but a file system.
    open_file = os.open

    def read_only(path, flags, *args, **options):
      if flags & os.O_CREAT and pathlib.Path(path).is_relative_to(tmp_path):
        raise OSError(30, os.strerror(30), path)
      return open_file(path, flags, *args, **options)

    monkeypatch.setattr(os, 'open', read_only)
  try:
    assert_refused(tmp_path, OSError, 'cannot be written, .*unchanged')
  finally:
    tmp_path.chmod(0o755)


def test_nothing_is_read_before_the_target_is_checked(tmp_path):
  def read():
    raise AssertionError('read')

  os.mkfifo(tmp_path / 'a.safetensors')
  leaf = tree.Stored(read, (2,), np.dtype('float64'))
  with pytest.raises(FileExistsError):
    checkpoint.save(tmp_path / 'a.safetensors', {'a': leaf})


def test_a_header_that_no_reader_accepts_is_not_written(tmp_path, monkeypatch):
  monkeypatch.setattr(foreign, 'LONGEST_HEADER', 2000)
  params = {f'leaf_{i}': np.ones(1) for i in range(30)}
  with pytest.raises(ValueError, match=r'30 leaves takes .*shard_bytes='):
    checkpoint.save(tmp_path, params)
  assert not any(tmp_path.iterdir())
