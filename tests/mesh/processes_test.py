"""Two processes: merge, candidates, save, load, bad input, one is killed."""

import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

from wsl import checkpoint, mesh
from wsl.mesh._processes import find, fingerprint, store, watch

_CODE = """
  import os, pathlib, signal, sys
  import jax
  import numpy as np
  from wsl import checkpoint, deltas, merge, mesh

  folder = pathlib.Path(sys.argv[1])
  run = mesh.start(config={'seed': 0}, timeout=2)
  print(run, flush=True)
  m = mesh.make('model:-1')
  models = [{'w': np.full((4, 2), float(i), np.float32)} for i in range(3)]
  base, *models = [mesh.shard(x, None, m) for x in models]
  merged = deltas.apply(base, merge.sum(deltas.stack(base, models)), coef=0.5)
  checkpoint.save(folder / 'merged', merged)
  rows = mesh.shardings(base, None, m)
  again = checkpoint.load(folder / 'merged', sharding=rows)
  assert again['w'].sharding == base['w'].sharding
  assert not again['w'].is_fully_addressable
  found = mesh.map_candidates(
    lambda c: again['w'].sum() / c, np.float32([1, 0, 2]),
    mesh=mesh.make('candidates:2'),
  )
  good = mesh.finite(found).tolist()
  print(found.tolist(), good, mesh.gather(again)['w'].sum(), flush=True)
  three = {'b': np.ones(3), 'w': np.ones(2)}
  explicit = jax.make_mesh((2,), ('model',))
  for refused in (
    lambda: mesh.make('model:3'),
    lambda: mesh.make('model:1'),
    lambda: mesh.shard(three, jax.P('model'), m),
    lambda: mesh.shard(three, [('w', 'model')], m),
    lambda: mesh.shard(three, None, explicit),
  ):
    try:
      refused()
    except ValueError as error:
      print(str(error), flush=True)
  if run.process == 1:
    os.pwrite = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
  checkpoint.save(folder / 'merged', base)
"""

_REFUSED = (
  'make: model=3 needs 3 devices, there are 2 (cpu): make the mesh smaller',
  'make: model=1 has 1 of 2 devices: a mesh of several processes needs all',
  "shard: leaf 'b' of shape (3,): axis 0 of 3 is not divisible by 2, the size",
  "shard: no rule covers leaf 'b': add one, or",
  "shard: axis 'model' of the mesh is Explicit, the default of jax.make_mesh",
)


def test_two_processes_until_one_is_killed(tmp_path: pathlib.Path) -> None:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  given = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', textwrap.dedent(_CODE), tmp_path],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      env=given
      | {'JAX_PLATFORMS': 'cpu'}
      | dict(zip(find.VARIABLES, (address, '2', rank))),
      text=True,
    )
    for rank in '01'
  ]
  outputs = [process.communicate(timeout=60) for process in processes]
  codes = [process.returncode for process in processes]
  assert codes == [1, -signal.SIGKILL], outputs
  for rank, (out, _) in enumerate(outputs):
    lines = [x for x in out.splitlines() if 'Gloo' not in x]
    described, found, *refused = lines
    assert described == (
      f'process {rank} of 2 (from the environment, coordinator {address}), '
      '1 of 2 cpu devices'
    )
    assert found == '[12.0, inf, 6.0] [True, False, True] 12.0'
    assert len(refused) == len(_REFUSED)
    for line, wanted in zip(refused, _REFUSED):
      assert line.startswith(wanted)
  assert outputs[0][1].splitlines()[-1] == (
    'wsl: process 1 of 2 gave no sign of life for 2 s: it was killed, or its '
    'host is gone: the run has ended'
  )
  saved = checkpoint.load(tmp_path / 'merged')['w']
  # The second save did not replace the first, and has left nothing.
  np.testing.assert_array_equal(saved, np.full((4, 2), 1.5, np.float32))
  assert [x.name for x in tmp_path.iterdir()] == ['merged']


class EndedError(Exception):
  """The process would have ended."""


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
  """Replaces the coordinator by a dict, and the end by an exception."""
  kept: dict[str, str] = {}

  def end(reason: str, *, after: float = 0) -> None:
    raise EndedError(reason)

  monkeypatch.setattr(store, 'write', kept.__setitem__)
  monkeypatch.setattr(store, 'read', kept.get)
  monkeypatch.setattr(watch, 'end', end)
  return kept


def test_an_exception_is_the_reason_of_all(shared: dict[str, str]) -> None:
  watches = [watch.Watch(i, 2, 0.05) for i in range(2)]
  with pytest.raises(EndedError, match=r'process 1 of 2 on .*: ValueError: a$'):
    watches[1].fail(ValueError('a\nmore'))
  with pytest.raises(EndedError, match=r'process 1 of 2 on .*: ValueError: a$'):
    watches[0].fail(ValueError('Gloo all-reduce failed'))
  assert shared['failed'].endswith('ValueError: a')


def test_an_error_of_communication_has_another_reason(
  shared: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
  times = itertools.count()
  monkeypatch.setattr(watch.time, 'monotonic', lambda: next(times) / 100)
  one = watch.Watch(0, 3, 0.05)
  alive = {'0': '5', '1': '5', '2': 'left'}
  assert one._silent(alive) is None
  found = [one._silent(alive | {'0': str(i)}) for i in range(6, 20)]
  (reason,) = {x for x in found if x}
  assert reason.startswith('process 1 of 3 gave no sign of life for 0.05 s')
  with pytest.raises(
    EndedError, match=r'process 0 of 3 on .*: ValueError: Gloo'
  ):
    one.fail(ValueError('Gloo all-reduce failed'))  # no verdict in time


@pytest.mark.parametrize(
  ('environment', 'wanted'),
  [
    ({}, None),
    ({'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4'}, None),
    (
      dict.fromkeys(('SLURM_JOB_ID', 'SLURM_STEP_NODELIST'), '7')
      | dict.fromkeys(('SLURM_PROCID', 'SLURM_LOCALID'), '0')
      | {'SLURM_STEP_NUM_TASKS': '4'},
      ('SLURM', {'cluster_detection_method': 'slurm', 'num_processes': 4}),
    ),
    (
      {'OMPI_COMM_WORLD_SIZE': '2'},
      ('Open MPI', {'cluster_detection_method': 'ompi'}),
    ),
    (
      dict(zip(find.VARIABLES, ('host:1', '2', '1'))),
      (
        'the environment',
        {'coordinator_address': 'host:1', 'num_processes': 2, 'process_id': 1},
      ),
    ),
  ],
)
def test_what_is_found(environment: dict[str, str], wanted: Any) -> None:
  environment = {'JAX_PLATFORMS': 'cpu'} | environment
  assert find.find(None, None, None, environment) == wanted


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('h:1', 2, None), 'process= missing: give coordinator=, processes='),
    ((None, 2, 0), 'coordinator= missing'),
    (('h', 2, 0), "coordinator= is 'h': give host:port of process 0"),
    (('h:1', 2, 2), 'process 2 of 2: processes are numbered from 0'),
    (('h:1', 'two', 0), 'process 0 of two: processes are numbered from 0'),
    (('h:1', [2], 0.5), r'process 0.5 of \[2\]: processes are numbered from 0'),
    (('h:99999', 2, 0), "coordinator= is 'h:99999': give host:port"),
    (('h:\u00b2', 2, 0), 'coordinator= is .*: give host:port'),
  ],
)
def test_incomplete_arguments(arguments: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    find.find(*arguments, {})


def test_a_timeout_is_a_number_of_seconds() -> None:
  for timeout in (0, '5', float('nan'), float('inf'), None):
    with pytest.raises(ValueError, match=r'start\(timeout=.*: give a positive'):
      mesh.start(timeout=timeout)


def test_processes_must_agree() -> None:
  text = lambda config: json.dumps(fingerprint.fingerprint(config))
  ours = text({'model': {'depth': 2}, 'seed': None})
  fingerprint.compare(1, ours, ours)
  with pytest.raises(
    ValueError, match=r"in config 'model/depth' \(2, there 3\)"
  ):
    fingerprint.compare(1, ours, text({'model': {'depth': 3}, 'seed': None}))
  with pytest.raises(ValueError, match=r'in config \(a, there b\): start all'):
    fingerprint.compare(1, text('a'), text('b'))
  found = fingerprint.fingerprint(None)
  assert f'file {__name__}' in found
  file = 'file wsl/mesh/_make.py'
  assert len(found[file]) == 12
  other = json.dumps(found | {file: '0'})
  with pytest.raises(ValueError, match=f'process 1 differs .* in {file} '):
    fingerprint.compare(1, json.dumps(found), other)
