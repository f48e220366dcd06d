"""One writer for a target, and readers that see the old or the new state."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from wsl import checkpoint, tree
from wsl.checkpoint._write import lock

STAGE = '.model.safetensors.save'


def _waiting(folder):
  """Starts a save in a thread that waits in the middle."""
  begun, go_on = threading.Event(), threading.Event()

  def read():
    begun.set()
    assert go_on.wait(60)
    return np.full(2, 5.0)

  params = {'a': np.ones(2), 'b': tree.Stored(read, (2,), np.dtype('float64'))}
  thread = threading.Thread(target=checkpoint.save, args=(folder, params))
  thread.start()
  assert begun.wait(60)

  def finish():
    go_on.set()
    thread.join()

  return finish


def test_two_threads(tmp_path):
  checkpoint.save(tmp_path, {'a': np.zeros(2)})
  finish = _waiting(tmp_path)
  # The file and the folder are one target.
  for path in (tmp_path, tmp_path / 'model.safetensors'):
    with pytest.raises(BlockingIOError) as caught:
      checkpoint.save(path, {'a': np.ones(1)})
    assert f'{path} is being saved by process {os.getpid()} on' in str(
      caught.value
    )
    assert '\n' not in str(caught.value)
  assert checkpoint.load(tmp_path)['a'].tolist() == [0.0, 0.0]
  checkpoint.save(tmp_path / 'other.safetensors', {'a': np.ones(1)})
  finish()
  assert checkpoint.load(tmp_path)['b'].tolist() == [5.0, 5.0]
  checkpoint.save(tmp_path, {'a': np.full(1, 7.0)})
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'model.safetensors', 'other.safetensors'}


@pytest.mark.parametrize('shard_bytes', [None, 1])
def test_many_threads_and_a_reader(tmp_path, shard_bytes):
  def params(value):
    return {f'{i}': np.full(50, value) for i in range(3)}

  checkpoint.save(tmp_path, params(0), shard_bytes=shard_bytes)
  saved, refused, errors = [], [], []

  def write(thread):
    try:
      for i in range(12):
        value = 100 * thread + i
        try:
          checkpoint.save(tmp_path, params(value), shard_bytes=shard_bytes)
          saved.append(value)
        except BlockingIOError:
          refused.append(value)
    except BaseException as error:
      errors.append(error)

  threads = [threading.Thread(target=write, args=(i,)) for i in range(1, 5)]
  for thread in threads:
    thread.start()
  seen = set()
  while any(thread.is_alive() for thread in threads):
    found = checkpoint.load(tmp_path)
    values = {float(x) for leaf in found.values() for x in leaf}
    assert len(values) == 1
    seen |= values
  assert not errors
  assert len(saved) + len(refused) == 48
  assert saved
  found = checkpoint.load(tmp_path)
  assert float(found['0'][0]) in saved
  assert len(list(tmp_path.iterdir())) == (1 if shard_bytes is None else 4)


_WRITER = """
  import sys
  import numpy as np
  from wsl import checkpoint, tree

  def read():
    print('begun', flush=True)
    sys.stdin.readline()
    return np.full(2, 5.0)

  leaf = tree.Stored(read, (2,), np.dtype('float64'))
  checkpoint.save(sys.argv[1], {'a': np.ones(200_000), 'b': leaf})
"""


@pytest.mark.parametrize('kill', [False, True])
def test_two_processes(tmp_path, kill):
  checkpoint.save(tmp_path, {'a': np.zeros(2)})
  code = '\n'.join(line[2:] for line in _WRITER.splitlines())
  with subprocess.Popen(
    [sys.executable, '-c', code, tmp_path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as writer:
    assert writer.stdout.readline() == 'begun\n'
    with pytest.raises(BlockingIOError, match=f'by process {writer.pid} on'):
      checkpoint.save(tmp_path, {'a': np.ones(1)})
    if kill:
      writer.send_signal(signal.SIGKILL)
    else:
      writer.communicate('\n', timeout=60)
  if kill:
    # Parts and lock of the killed process are still there.
    assert len(list((tmp_path / STAGE).iterdir())) == 2
  else:
    assert checkpoint.load(tmp_path)['b'].tolist() == [5.0, 5.0]
  checkpoint.save(tmp_path, {'a': np.full(1, 7.0)})
  assert [path.name for path in tmp_path.iterdir()] == ['model.safetensors']


def _leave_lock(folder, **changes):
  """Leaves the lock of another process in a folder."""
  (folder / STAGE).mkdir(exist_ok=True)
  owner = lock._own()._replace(**changes)
  (folder / STAGE / 'lock').write_text(json.dumps(owner))
  (folder / STAGE / '0.part').write_bytes(b'x')


@pytest.mark.parametrize('supported', [True, False])
def test_stale_locks_are_taken_over(tmp_path, monkeypatch, supported):
  if not supported:  # A file system without locks: the content decides.
    monkeypatch.setattr(lock, '_flock', lambda *_, **__: None)
  ended = subprocess.Popen([sys.executable, '-c', ''])
  ended.wait()
  for changes in (
    {'pid': ended.pid},
    {'started': '1'},  # Another process had this number before.
    {'boot': 'before a restart'},
  ):
    _leave_lock(tmp_path, **changes)
    checkpoint.save(tmp_path, {'a': np.ones(1)})
    assert [path.name for path in tmp_path.iterdir()] == ['model.safetensors']
  # A process that was killed before it had written its name.
  for text in ('', '{', '[1]', '3', 'null'):
    (tmp_path / STAGE).mkdir()
    (tmp_path / STAGE / 'lock').write_text(text)
    checkpoint.save(tmp_path, {'a': np.ones(1)})


def test_a_live_owner_is_respected_without_locks_of_the_file_system(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(lock, '_flock', lambda *_, **__: None)
  _leave_lock(tmp_path)
  with pytest.raises(BlockingIOError, match=f'process {os.getpid()} on'):
    checkpoint.save(tmp_path, {'a': np.ones(1)})
  assert (tmp_path / STAGE / '0.part').exists()


def test_the_lock_of_another_machine_is_respected(tmp_path):
  _leave_lock(tmp_path, host='elsewhere', boot='of another machine')
  with pytest.raises(
    BlockingIOError, match=r'on elsewhere since .*; if it has ended, remove '
  ) as caught:
    checkpoint.save(tmp_path, {'a': np.ones(1)})
  pathlib.Path(str(caught.value).rpartition('remove ')[2]).unlink()
  checkpoint.save(tmp_path, {'a': np.ones(1)})


def test_another_container_of_this_machine_ends_with_its_kernel_lock(tmp_path):
  _leave_lock(tmp_path, host='container', pid=1)
  checkpoint.save(tmp_path, {'a': np.ones(1)})


def test_the_owner_of_a_lock_is_this_process():
  owner = lock._own()
  assert (owner.pid, owner.host) == (os.getpid(), socket.gethostname())
  assert owner.started == lock._started(os.getpid())


def test_a_lazy_tree_does_not_read_what_has_replaced_its_files(tmp_path):
  params = {f'{i}': np.full(3, float(i)) for i in range(3)}
  for shard_bytes in (None, 1, 1, None):
    checkpoint.save(tmp_path, params, shard_bytes=shard_bytes)
    lazy = checkpoint.load(tmp_path, lazy=True)
    assert tree.read(lazy['0'])[0] == 0
    other = {name: x + 7 for name, x in params.items()}
    checkpoint.save(tmp_path, other, shard_bytes=shard_bytes)
    for name in params:
      with pytest.raises((ValueError, FileNotFoundError)) as caught:
        tree.read(lazy[name])
      assert '\n' not in str(caught.value)
