"""Trees written by the savers of Orbax and Flax."""

from flax import nnx, serialization
from flax.core import frozen_dict
from flax.training import train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from tests.checkpoint import writers
from wsl import checkpoint

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')


@pytest.mark.parametrize('kind', writers.RUNS)
def test_a_run_loads(tmp_path, kind):
  run = tmp_path / 'run'
  writers.RUNS[kind](run)
  assert checkpoint.steps(run) == [9, 12]
  writers.assert_equal(checkpoint.load(run), writers.params(12))
  writers.assert_equal(checkpoint.load(run, step=9), writers.params(9))
  (nine,) = (p for p in run.iterdir() if p.name.endswith('9'))
  writers.assert_equal(checkpoint.load(nine), writers.params(9))
  like = writers.params(0)
  writers.assert_equal(checkpoint.load(run, like=like), writers.params(12))
  restored = checkpoint.restore_run(run, like, step=9)
  np.testing.assert_array_equal(restored['dense']['kernel'], 9)
  assert restored['half'].dtype == jnp.bfloat16
  for call in (
    lambda: checkpoint.load(run, step=10),
    lambda: checkpoint.restore_run(run, like, step=10),
  ):
    with pytest.raises(FileNotFoundError, match=r'no step 10, .* \[9, 12\]: '):
      call()


@pytest.mark.parametrize('kind', writers.SINGLE)
def test_a_checkpoint_without_steps_loads(tmp_path, kind):
  folder = tmp_path / 'a'
  writers.SINGLE[kind](folder, writers.params())
  writers.assert_equal(checkpoint.load(folder), writers.params())
  writers.assert_equal(
    checkpoint.load(folder, like=writers.params()), writers.params()
  )
  restored = checkpoint.restore_run(folder, writers.params())
  np.testing.assert_array_equal(restored['count'], 2**40)
  assert checkpoint.steps(folder) == []
  with pytest.raises(ValueError, match=r'load\(step=3\): .*leave step= out'):
    checkpoint.load(folder, step=3)


@pytest.mark.parametrize('kind', ['PyTreeCheckpointer', 'zarr3', 'v1'])
def test_strings_are_leaves(tmp_path, kind):
  saved = {'w': np.ones(2), 'tag': 'vit', 'n': {'x': 'é', 'steps': 3}}
  writers.SINGLE[kind](tmp_path / 'a', saved)
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  for place in (None, sharding):
    loaded = checkpoint.load(tmp_path / 'a', sharding=place)
    assert loaded['tag'] == 'vit'
    assert loaded['n']['x'] == 'é'
    assert loaded['n']['steps'] == 3
    assert loaded['w'].tolist() == [1.0, 1.0]
  like = {'w': np.zeros(2), 'tag': '', 'n': {'x': '', 'steps': 0}}
  for restored in (
    checkpoint.load(tmp_path / 'a', like=like),
    checkpoint.restore_run(tmp_path / 'a', like),
  ):
    assert (restored['tag'], restored['n']['steps']) == ('vit', 3)


def assert_loads_like(path, saved):
  """Both loaders return the containers and values of a saved tree."""
  like = jax.tree.map(np.zeros_like, saved)
  for loaded in (
    checkpoint.load(path, like=like),
    checkpoint.restore_run(path, like),
  ):
    assert jax.tree.structure(loaded) == jax.tree.structure(saved)
    jax.tree.map(np.testing.assert_array_equal, loaded, saved)


def test_keys_are_exact_with_like(tmp_path):
  saved = {
    'layers': {i: np.full(1, i) for i in range(11)},
    'pairs': {('a', 1): np.ones(1), ('b', 0): np.zeros(1)},
    'a.b': {'c/d': np.ones(2)},
    'parts': (np.ones(3), [np.zeros(1)]),
  }
  with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'a', saved)
  assert_loads_like(tmp_path / 'a', saved)


_STATE = train_state.TrainState.create(
  apply_fn=print,
  params={'w': jnp.ones(2, jnp.float32)},
  tx=optax.adam(1e-3),
)
_NNX = nnx.state(
  nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(i)) for i in range(11)]), nnx.Param
)


@pytest.mark.parametrize('kind', ['StandardCheckpointer', 'PyTreeCheckpointer'])
@pytest.mark.parametrize(
  'saved',
  [_STATE, _NNX, frozen_dict.freeze({'a': {'w': np.ones(2)}})],
  ids=['TrainState', 'nnx', 'FrozenDict'],
)
def test_containers_are_exact_with_like(tmp_path, kind, saved):
  writers.SINGLE[kind](tmp_path / 'a', saved)
  assert_loads_like(tmp_path / 'a', saved)
  assert type(checkpoint.load(tmp_path / 'a')) is dict


@pytest.mark.parametrize('aggregate', [False, True])
@pytest.mark.parametrize('run', [False, True])
def test_a_checkpoint_of_before_2024_loads(tmp_path, aggregate, run):
  """Such a folder has no metadata; arrays are files, or in one msgpack."""
  saved = {'w': np.full(2, 3.0), 'n': {'b': np.arange(3, dtype=np.int32)}}
  item = tmp_path / 'checkpoint_3' if run else tmp_path / 'a'
  with ocp.PyTreeCheckpointer(use_ocdbt=False) as checkpointer:
    checkpointer.save(item, saved)
  for mark in ('_METADATA', '_CHECKPOINT_METADATA'):
    (item / mark).unlink()
  names = {'w': 'PLACEHOLDER://w', 'n': {'b': 'PLACEHOLDER://n.b'}}
  content = serialization.msgpack_serialize(saved if aggregate else names)
  (item / 'checkpoint').write_bytes(content)
  assert checkpoint.steps(tmp_path) == ([3] if run else [])
  for path in (item, tmp_path) if run else (item,):
    writers.assert_equal(checkpoint.load(path), saved)
    writers.assert_equal(checkpoint.load(path, like=saved), saved)
    writers.assert_equal(checkpoint.restore_run(path, saved), saved)


def test_a_checkpoint_of_t5x_is_refused(tmp_path):
  spec = {'driver': 'zarr', 'kvstore': {'path': 'target.w'}}
  content = {'version': 3, 'optimizer': {'target': {'w': spec}}}
  file = tmp_path / 'checkpoint_1000' / 'checkpoint'
  file.parent.mkdir()
  file.write_bytes(serialization.msgpack_serialize(content))
  with pytest.raises(
    ValueError, match=r"w/driver' of .* is 'zarr', not an arr"
  ):
    checkpoint.load(tmp_path)


def test_jax_defaults_narrow_no_leaf(tmp_path):
  writers.SINGLE['PyTreeCheckpointer'](tmp_path / 'a', writers.params())
  with jax.enable_x64(False):
    loaded = checkpoint.load(tmp_path / 'a')
  writers.assert_equal(loaded, writers.params())
