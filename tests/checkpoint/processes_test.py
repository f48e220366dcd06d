"""Two processes: each writes its shards; process 0 puts the files in place."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np

from wsl import checkpoint

_CODE = """
  import json, os, pathlib, sys
  import jax
  import numpy as np

  folder, address, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
  from wsl import checkpoint, mesh, tree
  from wsl.checkpoint import _shard_digests
  from wsl.checkpoint._read import file_bytes, regions

  mesh.start(coordinator=address, processes=2, process=rank)

  rows = jax.sharding.NamedSharding(mesh.make(4, 'd'), jax.P('d'))

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
  # Each process hashes its shards; both know the hashes of all.
  notes = _shard_digests.record({'w': array['w'], 'n': np.ones(3)})
  pathlib.Path(folder, f'notes {rank}').write_text(json.dumps(notes))
  # After the barrier every process finds complete files.
  assert checkpoint.load(pathlib.Path(folder, 'local'))['w'].sum() == 3

  # Two devices of each process; 'a' is over processes, 'b' within them.
  m, P = mesh.make('a:2,b:2'), jax.P
  def place(x, *spec):
    where = jax.sharding.NamedSharding(m, P(*spec))
    return jax.make_array_from_callback(x.shape, where, lambda i: x[i])

  def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype('f')

  params = {
    'rows': place(normal(64, 48), ('a', 'b')),
    'runs': place(normal(8, 64), None, 'a'),
    'short': place(normal(256, 12), None, ('a', 'b')),
    'odd': place(normal(65, 4), None, 'a'),
    'copies': place(normal(1000)),
    'half': place(normal(2, 4, 8), 'b', None, 'a').astype('bfloat16'),
    'local': np.arange(7),
    'empty': place(normal(0, 4)),
  }
  params['lazy'] = tree.map(twice, tree.defer(params['rows']))
  gathered, pwritten = [], []
  from wsl.checkpoint._write import pieces, sink, stage
  from wsl.checkpoint._write.parallel import exchange, shares, writer
  gather, pwrite = mesh.gather, os.pwrite
  def count_gather(x):
    gathered.append(x.shape)
    return gather(x)
  def count_write(file, data, at):
    pwritten.append(len(data))
    return pwrite(file, data, at)
  mesh.gather, os.pwrite = count_gather, count_write
  seen = []
  checkpoint.save(
    pathlib.Path(folder, 'all'), params, shard_bytes=1 << 14, checksums=True,
    progress=lambda *args: seen.append(args),
  )
  assert set(gathered) == {(65, 4)}, gathered
  print('written', sum(pwritten), flush=True)
  assert (seen[-1][1] == seen[-1][2]) if rank == 0 else not seen

  # Each process reads the columns of its devices, run by run.
  regions._GAP = 0
  columns = jax.sharding.NamedSharding(m, P(None, 'a'))
  lazy = checkpoint.load(
    pathlib.Path(folder, 'all'), lazy=True, sharding=lambda name: columns
  )
  taken.clear()
  tree.read(lazy['runs'])
  assert sum(taken) == params['runs'].nbytes // 2, taken

  # A failure of one process is that of all, and leaves nothing behind.
  bad = normal(4, 2)
  bad[3] = np.nan
  def refused(match, *args, **kwargs):
    try:
      checkpoint.save(pathlib.Path(folder, 'all'), *args, **kwargs)
    except (ValueError, RuntimeError) as error:
      assert match[rank] in str(error), error
    else:
      raise AssertionError(match)

  refused(
    ("process 1 of 2 failed: leaf 'w' of float32 has values", 'save: leaf'),
    {'w': place(bad, 'a')},
  )
  refused(
    ('save: leaf', 'process 0 of 2 failed: leaf'), {'w': bad}
  )
  refused(
    ('process 1 of 2 failed: its names, shapes, dt', 'save: its names, shapes'),
    {'w': array['w']}, metadata={'process': str(rank)},
  )
  # Processes without a common folder.
  if rank:
    of = stage.of
    stage.of = lambda target: stage.Stage(pathlib.Path('nowhere'), target)
  checkpoint.save(pathlib.Path(folder, 'gathered'), params)
"""


def _value(*shape):
  return np.random.default_rng(0).normal(size=shape).astype('f')


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
      text=True,
    )
    for rank in '01'
  ]
  outputs = [process.communicate(timeout=60)[0] for process in processes]
  assert [p.returncode for p in processes] == [0, 0], outputs
  np.testing.assert_array_equal(checkpoint.load(tmp_path / 'lazy')['w'], 2 * w)
  np.testing.assert_array_equal(checkpoint.load(tmp_path / 'array')['w'], w)
  sha = lambda x: hashlib.sha256(x.tobytes()).hexdigest()
  each = [[[i, 0], [i + 1, 2], sha(w[i : i + 1])] for i in range(4)]
  wanted = {'w': each, 'n': [[[0], [3], sha(np.ones(3))]]}
  for rank in '01':
    found = json.loads((tmp_path / f'notes {rank}').read_text())
    assert found == {'wsl.sha256': wanted}
  wanted = {
    'copies': _value(1000),
    'empty': _value(0, 4),
    'half': _value(2, 4, 8).astype(ml_dtypes.bfloat16),
    'lazy': 2 * _value(64, 48),
    'local': np.arange(7),
    'odd': _value(65, 4),
    'rows': _value(64, 48),
    'runs': _value(8, 64),
    'short': _value(256, 12),
  }
  # Reading verifies the hashes of 'all'.
  for name in ('all', 'gathered'):
    found = checkpoint.load(tmp_path / name)
    assert list(found) == list(wanted)
    for leaf, x in wanted.items():
      assert found[leaf].dtype == x.dtype
      np.testing.assert_array_equal(found[leaf], x)
  shards = sorted((tmp_path / 'all').glob('*.safetensors'))
  assert len(shards) > 2
  assert b'wsl.sha256' in shards[0].read_bytes()
  assert not list(tmp_path.rglob('.*'))
  # Each process has written half of the bytes.
  lines = [x for out in outputs for x in out.splitlines() if 'written' in x]
  first, second = [int(line.split()[1]) for line in lines]
  total = sum(x.nbytes for x in wanted.values())
  assert abs(first - second) < 0.1 * total
  # Process 0 writes the headers with hashes as well.
  assert total <= first + second < total + 4000


def _environment():
  # Each process has two CPUs, as they cannot share a GPU.
  given = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  devices = '--xla_force_host_platform_device_count=2'
  return given | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': devices}
