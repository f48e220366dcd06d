"""Two processes: sharded leaves are gathered, and process 0 writes."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import textwrap

import numpy as np

from wsl import checkpoint

_CODE = """
  import json, os, pathlib, sys
  import jax
  import numpy as np

  folder, address, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
  from wsl import checkpoint, mesh, tree
  from wsl.checkpoint import _shard_digests
  from wsl.checkpoint._read import file_bytes

  mesh.start(coordinator=address, processes=2, process=rank)

  rows = jax.sharding.NamedSharding(mesh.make(2, 'd'), jax.P('d'))

  def twice(x):
    return x + x

  def read(x):
    if rank:
      raise AssertionError('only process 0 reads what need not be gathered')
    return np.ones(3)

  taken, read_into = [], file_bytes.FileBytes.read_into

  def count(self, out, *args, **kwargs):
    taken.append(out.nbytes)
    return read_into(self, out, *args, **kwargs)

  given = pathlib.Path(folder, 'in')
  lazy = checkpoint.load(given, lazy=True, sharding=rows)
  array = checkpoint.load(given, sharding=rows)
  assert not array['w'].is_fully_addressable
  file_bytes.FileBytes.read_into = count
  tree.read(lazy)
  # Each process reads the rows of its devices.
  assert sum(taken) == array['w'].nbytes // 2, taken
  checkpoint.save(pathlib.Path(folder, 'lazy'), tree.map(twice, lazy))
  checkpoint.save(pathlib.Path(folder, 'array'), array)
  local = tree.Stored(lambda: read(0), (3,), np.dtype('float64'))
  checkpoint.save(pathlib.Path(folder, 'local'), {'w': local})
  # Each process hashes its shard; both know the hashes of all.
  notes = _shard_digests.record({'w': array['w'], 'n': np.ones(3)})
  pathlib.Path(folder, f'notes {rank}').write_text(json.dumps(notes))
  # After the barrier every process finds complete files.
  assert checkpoint.load(pathlib.Path(folder, 'local'))['w'].sum() == 3
"""


def test_two_processes(tmp_path):
  w = np.arange(8, dtype=np.float32).reshape(4, 2)
  checkpoint.save(tmp_path / 'in', {'w': w})
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', textwrap.dedent(_CODE), tmp_path, address, rank],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      env=_environment(),
    )
    for rank in '01'
  ]
  outputs = [process.communicate(timeout=60)[0] for process in processes]
  assert [p.returncode for p in processes] == [0, 0], outputs
  np.testing.assert_array_equal(checkpoint.load(tmp_path / 'lazy')['w'], 2 * w)
  np.testing.assert_array_equal(checkpoint.load(tmp_path / 'array')['w'], w)
  sha = lambda x: hashlib.sha256(x.tobytes()).hexdigest()
  halves = [[[i, 0], [i + 2, 2], sha(w[i : i + 2])] for i in (0, 2)]
  wanted = {'w': halves, 'n': [[[0], [3], sha(np.ones(3))]]}
  for rank in '01':
    found = json.loads((tmp_path / f'notes {rank}').read_text())
    assert found == {'wsl.sha256': wanted}


def _environment():
  # Each process has one CPU, as they cannot share a GPU.
  given = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  return given | {'JAX_PLATFORMS': 'cpu'}
