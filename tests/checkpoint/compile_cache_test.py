"""Compiled programs are kept on disk between processes."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from wsl import checkpoint

CODE = """
  import collections, pathlib, sys
  import jax
  from jax import monitoring
  import jax.numpy as jnp
  import numpy as np
  from wsl import checkpoint, deltas, merge, tree

  events = collections.Counter()
  monitoring.register_event_listener(lambda name, **_: events.update([name]))
  folder = pathlib.Path(sys.argv[1])
  load = lambda t: checkpoint.load(folder / f'{t}', lazy=True)
  base, *others = map(load, range(3))
  tau = merge.dare(deltas.stack(base, others), rate=0.5, key=jax.random.key(0))
  merged = deltas.apply(base, merge.ties(tau, density=0.5))
  checkpoint.save(folder / 'out', merged)
  names = [f'/jax/compilation_cache/cache_{x}' for x in ('hits', 'misses')]
  found = lambda: [events[name] for name in names]
  before = sum(found())
  tree.apply_kernel(jnp.take, np.arange(3.0), np.arange(3, dtype=np.int32))
  print(sum(found()) - before, *found())
"""


@pytest.mark.same_under_defaults('it is run in a process of its own')
def test_another_process_compiles_nothing(tmp_path):
  for t in range(3):
    rng = np.random.default_rng(t)
    x = {'w': rng.standard_normal((300, 20), np.float32), 'b': np.ones(7)}
    checkpoint.save(tmp_path / f'{t}', x)
  environment = os.environ | {
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }
  counts = []
  for _ in range(2):
    run = subprocess.run(
      [sys.executable, '-c', textwrap.dedent(CODE), tmp_path],
      capture_output=True,
      text=True,
      check=True,
      env=environment,
    )
    counts.append([int(number) for number in run.stdout.split()])
  (programs, hits, misses), (_, hits_again, misses_again) = counts
  assert programs == 1, 'constants of a float64 kernel compile programs'
  assert misses > 3
  assert misses_again == 0
  assert hits_again == hits + misses
