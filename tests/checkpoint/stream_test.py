"""Leaves on demand: read and computed when written, then released."""

import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests.checkpoint import dtypes
from wsl import checkpoint, deltas, merge, tree
from wsl.checkpoint._read import file_bytes


def _models(folder, number, seed=0):
  rng = np.random.default_rng(seed)
  for t in range(number):
    params = {
      'w': rng.standard_normal((6, 5)).astype(np.float32),
      'b': {'x': rng.standard_normal(7), 'n': np.arange(3)},
    }
    checkpoint.save(folder / f'{t}.safetensors', params)
  return [folder / f'{t}.safetensors' for t in range(number)]


@pytest.mark.parametrize('shard_bytes', [None, 64])
def test_streamed_merge_equals_the_one_in_memory(tmp_path, shard_bytes):
  def merged(lazy):
    base, *models = [
      checkpoint.load(path, lazy=lazy) for path in _models(tmp_path, 4)
    ]
    delta = merge.ties(deltas.stack(base, models), density=0.5)
    return deltas.apply(base, delta, coef=0.7)

  assert tree.on_demand(merged(lazy=True))
  checkpoint.save(tmp_path / 'out', merged(lazy=True), shard_bytes=shard_bytes)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6),
    checkpoint.load(tmp_path / 'out'),
    jax.device_get(merged(lazy=False)),
  )


def test_lazy_leaves_are_read_on_each_use_and_not_before(tmp_path):
  file = _models(tmp_path, 1)[0]
  lazy = checkpoint.load(file, lazy=True)
  assert lazy['w'].shape == (6, 5)
  assert lazy['w'].dtype == np.float32
  first = tree.read(lazy['w'])
  assert first.ctypes.data % 64 == 0
  assert tree.read(lazy['w']) is not first
  np.testing.assert_array_equal(first, checkpoint.load(file)['w'])


def test_a_file_that_changed_is_not_read(tmp_path):
  file = _models(tmp_path, 1)[0]
  lazy = checkpoint.load(file, lazy=True)
  checkpoint.save(file, {'w': np.zeros(3)})
  with pytest.raises(ValueError, match=f'{file} has changed since leaf .w'):
    tree.read(lazy['w'])
  file.unlink()
  with pytest.raises(FileNotFoundError):
    tree.read(lazy['w'])


def test_a_file_may_be_replaced_by_a_merge_of_its_leaves(tmp_path):
  checkpoint.save(tmp_path, {'a': np.arange(4.0), 'b': np.ones(2)})
  lazy = checkpoint.load(tmp_path, lazy=True)
  checkpoint.save(tmp_path, tree.map(_double, lazy), shard_bytes=1)
  assert checkpoint.load(tmp_path)['a'].tolist() == [0.0, 2.0, 4.0, 6.0]


def _double(x):
  return jnp.asarray(2, x.dtype) * x


@pytest.mark.parametrize('dtype', dtypes.FLOATS)
@pytest.mark.parametrize('value', [np.nan, -np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found(tmp_path, dtype, value):
  x = np.ones((3, 4), np.complex64 if dtype is np.complex64 else np.float64)
  x[1, 2] = value
  with np.errstate(all='ignore'):
    x = x.astype(dtype)
  file = tmp_path / 'a.safetensors'
  with pytest.raises(
    ValueError, match=r"save: leaf 'w' of .* has values that are NaN"
  ):
    checkpoint.save(file, {'w': x})
  assert not list(tmp_path.iterdir())
  checkpoint.save(file, {'w': x}, check_finite=False)
  lazy = checkpoint.load(file, lazy=True)
  for read in (lambda: tree.read(lazy), lambda: checkpoint.load(file)):
    with pytest.raises(ValueError, match=r"leaf 'w' of .* at \[1, 2\]: leave"):
      read()
  unchecked = checkpoint.load(file, lazy=True, check_finite=False)
  assert tree.read(unchecked)['w'].tobytes() == x.tobytes()
  eager = checkpoint.load(file, check_finite=False)
  assert eager['w'].tobytes() == x.tobytes()


def test_every_finite_half_passes_and_no_other():
  bits = np.arange(1 << 16, dtype=np.uint16)
  for dtype in (np.float16, ml_dtypes.bfloat16):
    values = bits.view(dtype)
    found = [tree.all_finite(values[i : i + 1]) for i in range(0, 1 << 16, 7)]
    finite = np.isfinite(values.astype(np.float32))
    np.testing.assert_array_equal(found, finite[::7])
    assert tree.all_finite(values[finite])


@pytest.mark.parametrize('dtype', dtypes.FLOATS[:3])
def test_the_largest_finite_values_pass(dtype):
  top = np.finfo(dtype).max
  assert tree.all_finite(np.asarray([top, -top, 0, -0.0], dtype))


def test_a_bad_value_in_a_later_chunk_is_located(tmp_path, monkeypatch):
  monkeypatch.setattr(file_bytes, '_CHUNK', 64)
  x = np.zeros((10, 10))
  x[7, 3] = np.inf
  checkpoint.save(tmp_path, {'w': x}, check_finite=False)
  with pytest.raises(ValueError, match=r'is inf at \[7, 3\]'):
    tree.read(checkpoint.load(tmp_path, lazy=True))
  x[7, 3] = 5
  checkpoint.save(tmp_path, {'w': x})
  got = tree.read(checkpoint.load(tmp_path, lazy=True))
  np.testing.assert_array_equal(got['w'], x)


def test_an_interrupted_save_changes_nothing(tmp_path):
  checkpoint.save(tmp_path, {'a': np.ones(2)})
  before = {path: path.read_bytes() for path in tmp_path.iterdir()}

  def fail():
    raise KeyboardInterrupt

  broken = tree.Stored(fail, (2,), np.dtype('float64'))
  for shard_bytes in (None, 1):
    with pytest.raises(KeyboardInterrupt):
      checkpoint.save(
        tmp_path, {'a': np.zeros(2), 'b': broken}, shard_bytes=shard_bytes
      )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
  ('value', 'found'),
  [(np.zeros(3), r'float64\[3\]'), (np.zeros(2, np.int8), r'int8\[2\]')],
)
def test_another_shape_or_dtype_than_declared_is_an_error(
  tmp_path, value, found
):
  leaf = tree.Stored(lambda: value, (2,), np.dtype('float64'))
  message = rf"leaf 'a' promised float64\[2\] and is {found}"
  with pytest.raises(ValueError, match=message):
    checkpoint.save(tmp_path, {'a': leaf})
  assert not any(tmp_path.iterdir())


def test_progress(tmp_path):
  calls = []
  params = {'a': np.zeros(2), 'b': np.zeros(3, np.int8), 'c': np.zeros(1)}
  checkpoint.save(tmp_path, params, progress=lambda *call: calls.append(call))
  assert calls == [('a', 16, 27), ('c', 24, 27), ('b', 27, 27)]


def test_buffers_are_reused_only_when_released():
  free = []
  first = file_bytes.aligned(100, free)
  place = first.ctypes.data
  view = first.view(np.float32)[5:].reshape(4, 5)
  del first
  assert file_bytes.aligned(100, free).ctypes.data != place
  del view
  again = [file_bytes.aligned(n, free) for n in (90, 90)]
  assert place in [x.ctypes.data for x in again]
  assert all(x.ctypes.data % 64 == 0 for x in again)


def test_buffers_have_the_size_asked_for():
  free = []
  for nbytes in (100, 130, 0, 164, 165, 64):
    assert file_bytes.aligned(nbytes, free).size == nbytes
    assert len(free) == 1


def test_a_result_does_not_share_a_reused_buffer(tmp_path):
  # A kernel that returns its operand gives XLA's view of the buffer itself.
  params = {f'{i}': np.full(5000, i, np.float32) for i in range(20)}
  checkpoint.save(tmp_path / 'in', params)
  lazy = tree.map(_same, checkpoint.load(tmp_path / 'in', lazy=True))
  checkpoint.save(tmp_path / 'out', lazy)
  got = checkpoint.load(tmp_path / 'out')
  for name, x in params.items():
    np.testing.assert_array_equal(got[name], x)


def _same(x):
  return x


def _mean(x):
  return jnp.mean(x, axis=0)


def test_plan(tmp_path):
  paths = _models(tmp_path, 3)
  base, *models = [checkpoint.load(path, lazy=True) for path in paths]
  merged = deltas.apply(base, tree.map(_mean, deltas.stack(base, models)))
  for path in paths:  # Nothing is read but headers.
    path.unlink()
  plan = checkpoint.plan(merged)
  rows = {leaf.name: leaf for leaf in plan.leaves}
  assert rows['w'].shape == (6, 5)
  assert rows['w'].dtype == np.float32
  assert (rows['w'].bytes_in, rows['w'].bytes_out) == (360, 120)
  assert rows['w'].peak_bytes >= 480
  assert (rows['b/n'].bytes_in, rows['b/n'].bytes_out) == (24, 24)
  assert plan.bytes_in == 360 + 3 * 56 + 24
  assert plan.bytes_out == 120 + 56 + 24
  assert plan.peak_bytes >= rows['w'].peak_bytes
  lines = str(plan).splitlines()
  assert lines[0].startswith('3 leaves, read 552 B, write 200 B, hold ')
  assert lines[1].startswith('  w    float32[6, 5]: read 360 B, write 120 B')


def test_plan_of_a_path_and_of_arrays(tmp_path):
  params = {f'{i}': np.zeros(1 << 18, np.float32) for i in range(12)}
  checkpoint.save(tmp_path, params)
  plan = checkpoint.plan(tmp_path)
  assert (plan.bytes_in, plan.bytes_out) == (12 << 20, 12 << 20)
  assert '12 leaves, read 12.0 MiB, write 12.0 MiB' in str(plan)
  assert '  and 2 smaller ones' in str(plan).splitlines()
  assert checkpoint.plan(params).bytes_in == 0
  assert checkpoint.plan({}).peak_bytes == 0


def test_plan_counts_the_scratch_of_a_kernel():
  leaf = tree.Stored(lambda: None, (64, 64), np.dtype('float32'))
  cubed = tree.map(_cube, {'w': leaf})
  row = checkpoint.plan(cubed).leaves[0]
  assert row.peak_bytes > row.bytes_in + row.bytes_out


def _cube(x):
  return x @ x @ x


@pytest.mark.same_under_defaults('it is run in a process of its own')
def test_peak_memory_is_that_of_one_leaf(tmp_path):
  code = """
    import pathlib, sys
    import jax.numpy as jnp
    import numpy as np
    from wsl import checkpoint, tree

    folder = pathlib.Path(sys.argv[1])
    size, leaves = 1 << 20, 40  # 4 MiB each, 160 MiB a model

    def half(x, y):
      return (x + y) * jnp.asarray(0.5, x.dtype)

    def peak():
      status = pathlib.Path('/proc/self/status').read_text()
      line = next(x for x in status.splitlines() if 'VmHWM' in x)
      return int(line.split()[1]) / 1024

    def models(leaves):
      make = lambda i: tree.Stored(
        lambda: np.full(size, i, np.float32), (size,), np.dtype(np.float32)
      )
      for name in 'ab':
        params = {f'{i}': make(i) for i in range(leaves)}
        checkpoint.save(folder / name, params)
      a, b = (checkpoint.load(folder / name, lazy=True) for name in 'ab')
      return tree.map(half, a, b)

    checkpoint.save(folder / 'c', models(1))
    before = peak()
    merged = models(leaves)
    checkpoint.save(folder / 'c', merged)
    grown = peak() - before
    print(grown, checkpoint.plan(merged).peak_bytes / 2**20)
  """
  if not pathlib.Path('/proc/self/status').exists():
    pytest.skip('no /proc to read the peak from')
  run = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code), tmp_path],
    capture_output=True,
    text=True,
    check=True,
  )
  grown, planned = map(float, run.stdout.split())
  assert planned == pytest.approx(12, abs=1)  # chunks of 1 MiB
  assert grown < 80  # Half of one model: two are read, one is written.
