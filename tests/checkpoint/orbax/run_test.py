"""Runs saved by Orbax."""

import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsl import checkpoint, tree


class State(NamedTuple):
  params: dict
  opt: tuple
  step: int
  key: jax.Array


def _state(scale=1.0):
  params = {
    'a': {'w': jnp.full((4, 3), scale, jnp.bfloat16), 'b': np.ones(3)},
    'l': [jnp.full(2, scale, jnp.float32), None, ()],
  }
  opt = optax.adam(1e-3).init(params)
  return State(params, opt, int(7 * scale), jax.random.key(int(scale)))


def _assert_equal(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)

  def same(x, y):
    assert jnp.asarray(x).dtype == jnp.asarray(y).dtype
    if jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(x, y)

  jax.tree.map(same, got, want)


def test_round_trip_and_latest_step(tmp_path):
  assert checkpoint.steps(tmp_path / 'none') == []
  for step, scale in [(1, 1.0), (12, 2.0)]:
    checkpoint.save_run(tmp_path, _state(scale), step=step)
  assert checkpoint.steps(tmp_path) == [1, 12]
  _assert_equal(checkpoint.restore_run(tmp_path, _state(5.0)), _state(2.0))
  restored = checkpoint.restore_run(tmp_path, _state(5.0), step=1)
  _assert_equal(restored, _state(1.0))
  shapes = jax.eval_shape(lambda: _state(5.0))
  restored = checkpoint.restore_run(tmp_path, shapes)
  np.testing.assert_array_equal(restored.opt[0].count, 0)


def test_keep(tmp_path):
  for step in range(4):
    checkpoint.save_run(tmp_path, {'x': jnp.ones(1)}, step=step, keep=2)
  assert checkpoint.steps(tmp_path) == [2, 3]


@pytest.mark.needs_devices(8)
def test_another_sharding(tmp_path):
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((8,), ('d',), axis_types=auto)
  half = jax.make_mesh((4,), ('e',), axis_types=auto)
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('d'))
  columns = jax.sharding.NamedSharding(
    half, jax.sharding.PartitionSpec(None, 'e')
  )
  x = jnp.arange(64.0).reshape(8, 8)
  checkpoint.save_run(tmp_path, {'x': jax.device_put(x, rows)}, step=0)
  like = {'x': jax.ShapeDtypeStruct((8, 8), x.dtype, sharding=columns)}
  restored = checkpoint.restore_run(tmp_path, like)['x']
  assert restored.sharding == columns
  np.testing.assert_array_equal(restored, x)
  placed = checkpoint.load(tmp_path, sharding=columns)['x']
  assert placed.sharding == columns
  np.testing.assert_array_equal(placed, x)


def test_leaves_on_demand_are_read(tmp_path):
  leaf = tree.Stored(lambda: np.ones(2), (2,), np.dtype('float64'))
  checkpoint.save_run(tmp_path, {'x': leaf}, step=0)
  restored = checkpoint.restore_run(tmp_path, {'x': np.zeros(2)})
  assert restored['x'].tolist() == [1.0, 1.0]


def test_like_may_hold_scalars_of_numpy(tmp_path):
  checkpoint.save_run(tmp_path, {'n': np.asarray(2**40)}, step=0)
  restored = checkpoint.restore_run(tmp_path, {'n': np.int64(0)})
  assert int(restored['n']) == 2**40


def test_load_reads_a_run_a_step_or_an_item(tmp_path):
  for step, scale in [(9, 1.0), (10, 2.0)]:
    checkpoint.save_run(tmp_path, _state(scale), step=step)
  for path, scale in [
    (tmp_path, 2.0),
    (tmp_path / '9', 1.0),
    (tmp_path / '10' / 'default', 2.0),
  ]:
    loaded = checkpoint.load(path)
    assert loaded.keys() == {'params', 'opt', 'step', 'key'}
    assert isinstance(loaded['params']['a']['w'], np.ndarray)
    assert loaded['params']['a']['w'].dtype == jnp.bfloat16
    assert loaded['params']['l'][0].tolist() == [scale, scale]
    assert loaded['step'] == int(7 * scale)
  like = _state()._replace(key=np.zeros(2, np.uint32))
  assert checkpoint.load(tmp_path, like=like).params['l'][0].tolist() == [2, 2]
  lazy = checkpoint.load(tmp_path, lazy=True)
  assert isinstance(lazy['params']['l'][0], tree.Stored)
  assert tree.read(lazy)['params']['l'][0].tolist() == [2, 2]


def test_a_step_is_saved_once(tmp_path):
  checkpoint.save_run(tmp_path, {'x': jnp.ones(1)}, step=5)
  with pytest.raises(ValueError, match='has step 5 already'):
    checkpoint.save_run(tmp_path, {'x': jnp.ones(1)}, step=5)
  checkpoint.save_run(tmp_path, {'x': jnp.ones(1)}, step=3)
  assert checkpoint.steps(tmp_path) == [3, 5]


def test_missing_run_and_step(tmp_path):
  for path in (tmp_path, tmp_path / 'none'):
    with pytest.raises(FileNotFoundError, match=f'{path} has no step, its'):
      checkpoint.restore_run(path, {})
  checkpoint.save_run(tmp_path, {'x': jnp.ones(1)}, step=5)
  with pytest.raises(FileNotFoundError, match=r'no step 4, its steps are \[5'):
    checkpoint.restore_run(tmp_path, {'x': jnp.ones(1)}, step=4)


@pytest.mark.parametrize(
  ('like', 'message'),
  [
    ({'w': jnp.ones((2, 3))}, "has a leaf 'step' that like does not have"),
    (
      {'w': jnp.ones((2, 3)), 'steps': 0},
      r"no leaf 'steps' \(did you mean 'step'\?\): like must have",
    ),
    (
      {'w': jnp.ones((2, 4)), 'step': 0},
      r"leaf 'w' of .* has shape \(2, 3\), like has \(2, 4\)",
    ),
  ],
)
def test_like_must_fit(tmp_path, like, message):
  checkpoint.save_run(tmp_path, {'w': jnp.ones((2, 3)), 'step': 1}, step=0)
  with pytest.raises(ValueError, match=message):
    checkpoint.restore_run(tmp_path, like)


@pytest.mark.parametrize('damage', ['cut', 'remove', 'data'])
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_damaged_step(tmp_path, damage):
  checkpoint.save_run(tmp_path, {'w': jnp.ones((2, 3))}, step=0)
  item = tmp_path / '0' / 'default'
  if damage == 'cut':
    file = item / '_METADATA'
    file.write_bytes(file.read_bytes()[:20])
  elif damage == 'remove':
    (item / 'manifest.ocdbt').unlink()
  else:
    for file in item.glob('**/d/*'):
      file.write_bytes(b'')
  for call in (
    lambda: checkpoint.restore_run(tmp_path, {'w': jnp.ones((2, 3))}),
    lambda: checkpoint.load(tmp_path),
  ):
    with pytest.raises(ValueError, match='cannot be read, take an ear') as got:
      call()
    assert '\n' not in str(got.value)
    assert str(tmp_path) in str(got.value)


@pytest.mark.same_under_defaults('it is run in a process of its own')
def test_safetensors_alone_do_not_import_orbax():
  code = (
    'import sys, tempfile; from wsl import checkpoint; import numpy as np;'
    'f = tempfile.mkdtemp(); checkpoint.save(f, {"a": np.ones(1)});'
    'checkpoint.load(f); checkpoint.plan(f);'
    'sys.exit(any(m.startswith("orbax") for m in sys.modules))'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
