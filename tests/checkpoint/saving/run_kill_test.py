"""Killed saves of runs: no step is half there, and the next save cleans up."""

import os
import pathlib
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from wsl import checkpoint
from wsl.checkpoint._write import lock

_STATE = {'w': np.arange(4.0)}


def _names(folder):
  return sorted(path.name for path in folder.iterdir())


def _assert_restored(folder, step):
  restored = checkpoint.restore_run(folder, _STATE, step=step)
  np.testing.assert_array_equal(restored['w'], _STATE['w'])


def test_a_step_whose_removal_was_killed_is_no_step(tmp_path, monkeypatch):
  for step in (1, 2):
    checkpoint.save_run(tmp_path, _STATE, step=step, keep=2)
  remove = shutil.rmtree

  def killed(folder, *args, **options):
    if pathlib.Path(folder).name.startswith('1'):
      remove(next(path for path in folder.iterdir() if path.is_dir()))
      raise KeyboardInterrupt
    remove(folder, *args, **options)

  with monkeypatch.context() as patch:
    patch.setattr(shutil, 'rmtree', killed)
    with pytest.raises(KeyboardInterrupt):
      checkpoint.save_run(tmp_path, _STATE, step=3, keep=2)
  assert _names(tmp_path) == ['1.orbax-checkpoint-tmp', '2', '3']
  assert checkpoint.steps(tmp_path) == [2, 3]
  _assert_restored(tmp_path, 2)
  _assert_restored(tmp_path, 3)
  checkpoint.save_run(tmp_path, _STATE, step=4, keep=2)
  assert _names(tmp_path) == ['3', '4']


_WRITER = """
import signal, sys
import numpy as np
from wsl import checkpoint

# The files of a step are complete when its folder is about to be renamed.
def kill(event, args):
  if event == 'os.rename' and 'orbax-checkpoint-tmp' in str(args[0]):
    signal.raise_signal(signal.SIGKILL)

sys.addaudithook(kill)
checkpoint.save_run(sys.argv[1], {'w': np.zeros(4)}, step=5)
"""


def test_a_save_killed_before_its_step_is_complete(tmp_path):
  checkpoint.save_run(tmp_path, _STATE, step=1)
  run = subprocess.run(
    [sys.executable, '-c', _WRITER, tmp_path], capture_output=True, check=False
  )
  assert run.returncode == -9, run.stderr
  assert any('5.orbax-checkpoint-tmp' in name for name in _names(tmp_path))
  assert checkpoint.steps(tmp_path) == [1]
  _assert_restored(tmp_path, None)
  checkpoint.save_run(tmp_path, _STATE, step=9)
  assert _names(tmp_path) == ['1', '9']


def test_one_writer_saves_to_a_run(tmp_path):
  checkpoint.save_run(tmp_path, _STATE, step=1)
  begun, done = threading.Event(), threading.Event()

  def hold():
    with lock.hold(tmp_path / '.lock', 'test'):
      begun.set()
      done.wait(60)

  thread = threading.Thread(target=hold)
  thread.start()
  assert begun.wait(60)
  with pytest.raises(
    BlockingIOError, match=f'save_run: {tmp_path} is being .* {os.getpid()} on'
  ):
    checkpoint.save_run(tmp_path, _STATE, step=2)
  done.set()
  thread.join()
  checkpoint.save_run(tmp_path, _STATE, step=2)
  assert _names(tmp_path) == ['1', '2']


def test_keep_must_be_positive(tmp_path):
  with pytest.raises(ValueError, match=r'save_run\(keep=0\): give'):
    checkpoint.save_run(tmp_path, _STATE, step=1, keep=0)
