"""Chunks equal whole leaves under JAX's defaults too, without 64 bits."""

import os
import subprocess
import sys
import textwrap

CODE = """
  import jax, jax.numpy as jnp, numpy as np
  from wsl import deltas, merge, tree

  def lazy(x):
    def read_into(start, out):
      out[:] = x.reshape(-1)[start : start + out.size]
    return tree.Stored(lambda: x, x.shape, x.dtype, read_into)

  assert not jax.config.read('jax_enable_x64')
  for dtype in ('bfloat16', 'float32', 'float64', 'complex128'):
    def model(seed):
      rng = np.random.default_rng(seed)
      return {
        'w': lazy(rng.normal(size=(40, 30)).astype(jnp.dtype(dtype))),
        'n': lazy(np.arange(7)),
      }
    base, *others = map(model, range(4))
    tau = deltas.stack(base, others)
    methods = [merge.mean(tau), merge.weighted_mean(tau, [0.2, 0.3, 0.5])]
    key = jax.random.key(0)
    methods.append(merge.sum(merge.dare(tau, rate=0.3, key=key)))
    if dtype != 'complex128':
      methods.append(merge.ties(tau, density=0.3))
      methods.append(merge.ties(tau, density=0.3, scope='leaf'))
    for delta in methods:
      x = deltas.apply(base, delta, coef=np.float64(0.1))
      assert tree.chunk_memory(x['w']) is not None
      parts = {'w': [], 'n': []}
      for name, values in tree.stream(x, chunk_bytes=1 << 9):
        parts[name].append(values)
      for name, whole in tree.read(x).items():
        found = np.concatenate(parts[name])
        assert found.dtype == np.asarray(whole).dtype == x[name].dtype
        assert found.tobytes() == np.asarray(whole).tobytes(), (dtype, name)
  # One search over leaves of 32 and of 64 bits, in memory and in files, small
  # enough to be sorted and not. The bits of the wide ones need 64 bits.
  for size in (30, 5000):
    rng = np.random.default_rng(0)
    x = {
      'a': rng.normal(size=(3, size)).astype(np.float32),
      'b': rng.normal(size=(3, 7)),
      'c': rng.normal(size=(3, 9)).astype(np.complex64),
    }
    both = np.sort(np.concatenate([abs(v) for v in x.values()], axis=1), axis=1)
    for k in (1, size // 2, size + 10):
      negative = lambda v: tree.apply_kernel(jnp.negative, lazy(v))
      for y in (x, jax.tree.map(lazy, x), jax.tree.map(negative, x)):
        found = tree.kth_magnitude(y, k)
        np.testing.assert_array_equal(found, both[:, -k])
  print('equal')
"""


def test_chunks_under_the_defaults_of_jax() -> None:
  environment = {k: v for k, v in os.environ.items() if 'JAX_' not in k}
  run = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(CODE)],
    capture_output=True,
    text=True,
    check=False,
    env=environment,
  )
  assert run.stdout.strip() == 'equal', run.stderr[-2000:]
