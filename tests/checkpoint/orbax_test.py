"""Folders that other programs have written with Orbax, and with Flax."""

import flax
from flax import serialization
from flax.training import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.experimental import v1
import pytest

from wsl import checkpoint, tree

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')


def _params(scale=1.0):
  return {
    'dense': {'kernel': np.full((2, 3), scale, np.float32)},
    'half': jnp.full(2, scale, jnp.bfloat16),
    'wide': np.full(2, scale, np.float64),
    'count': np.full(1, 2**40, np.int64),
    'layers': [np.full(1, i) for i in range(11)],
  }


_EXTRA = {'mu': np.zeros(3, np.float32)}


def _assert_equal(got, want):
  """Compares names, dtypes and values."""
  got, want = tree.named(got), tree.named(want)
  assert got.keys() == want.keys()
  for name, x in want.items():
    assert isinstance(got[name], np.ndarray)
    assert got[name].dtype == np.asarray(x).dtype
    np.testing.assert_array_equal(got[name], x)


def _manager(path, args, **options):
  """Saves steps 9 and 12 of a run."""
  options = ocp.CheckpointManagerOptions(**options)
  with ocp.CheckpointManager(path, options=options) as manager:
    for step in (9, 12):
      manager.save(step, args=args(_params(step)))
      manager.wait_until_finished()


def _legacy_manager(path):
  with ocp.CheckpointManager(
    path, {'params': ocp.PyTreeCheckpointer()}
  ) as manager:
    for step in (9, 12):
      manager.save(step, {'params': _params(step)})


def _training(path):
  with v1.training.Checkpointer(path) as checkpointer:
    for step in (9, 12):
      checkpointer.save(step, _params(step))


def _flax(path):
  before = flax.config.flax_use_orbax_checkpointing
  flax.config.update('flax_use_orbax_checkpointing', True)
  for step in (9, 12):
    checkpoints.save_checkpoint(path, _params(step), step=step, keep=5)
  flax.config.update('flax_use_orbax_checkpointing', before)


_RUNS = {
  'default': lambda path: _manager(path, ocp.args.StandardSave),
  'pytree': lambda path: _manager(path, ocp.args.PyTreeSave),
  'prefix': lambda path: _manager(
    path, ocp.args.StandardSave, step_prefix='ckpt'
  ),
  'fixed width': lambda path: _manager(
    path, ocp.args.StandardSave, step_format_fixed_length=8
  ),
  'prefix and width': lambda path: _manager(
    path,
    ocp.args.StandardSave,
    step_prefix='vit_b16',
    step_format_fixed_length=8,
  ),
  **{
    name: lambda path, name=name: _manager(
      path,
      lambda params: ocp.args.Composite(
        **{name: ocp.args.StandardSave(params)}
      ),
    )
    for name in ('items', 'params', 'state')
  },
  'with JSON': lambda path: _manager(
    path,
    lambda params: ocp.args.Composite(
      config=ocp.args.JsonSave({'width': 3}),
      model=ocp.args.PyTreeSave(params),
    ),
  ),
  'legacy manager': _legacy_manager,
  'training.Checkpointer': _training,
  'flax': _flax,
}


@pytest.mark.parametrize('kind', _RUNS)
def test_a_run_loads(tmp_path, kind):
  run = tmp_path / 'run'
  _RUNS[kind](run)
  assert checkpoint.steps(run) == [9, 12]
  _assert_equal(checkpoint.load(run), _params(12))
  _assert_equal(checkpoint.load(run, step=9), _params(9))
  (nine,) = (p for p in run.iterdir() if p.name.endswith('9'))
  _assert_equal(checkpoint.load(nine), _params(9))
  like = _params(0)
  _assert_equal(checkpoint.load(run, like=like), _params(12))
  restored = checkpoint.restore_run(run, like, step=9)
  np.testing.assert_array_equal(restored['dense']['kernel'], 9)
  assert restored['half'].dtype == jnp.bfloat16
  for call in (
    lambda: checkpoint.load(run, step=10),
    lambda: checkpoint.restore_run(run, like, step=10),
  ):
    with pytest.raises(FileNotFoundError, match=r'no step 10, .* \[9, 12\]: '):
      call()


def _save_by(make, **options):
  def save(path, params):
    with make(**options) as checkpointer:
      checkpointer.save(path, params)

  return save


_SINGLE = {
  'StandardCheckpointer': _save_by(ocp.StandardCheckpointer),
  'PyTreeCheckpointer': _save_by(ocp.PyTreeCheckpointer),
  'without OCDBT': _save_by(ocp.PyTreeCheckpointer, use_ocdbt=False),
  'zarr3': _save_by(ocp.PyTreeCheckpointer, use_zarr3=True),
  'v1': v1.save,
}


@pytest.mark.parametrize('kind', _SINGLE)
def test_a_checkpoint_without_steps_loads(tmp_path, kind):
  folder = tmp_path / 'a'
  _SINGLE[kind](folder, _params())
  _assert_equal(checkpoint.load(folder), _params())
  _assert_equal(checkpoint.load(folder, like=_params()), _params())
  restored = checkpoint.restore_run(folder, _params())
  np.testing.assert_array_equal(restored['count'], 2**40)
  assert checkpoint.steps(folder) == []
  with pytest.raises(ValueError, match=r'load\(step=3\): .*leave step= out'):
    checkpoint.load(folder, step=3)


@pytest.mark.parametrize('kind', ['PyTreeCheckpointer', 'zarr3', 'v1'])
def test_strings_are_leaves(tmp_path, kind):
  saved = {'w': np.ones(2), 'tag': 'vit', 'n': {'x': 'é', 'steps': 3}}
  _SINGLE[kind](tmp_path / 'a', saved)
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


def test_keys_are_exact_with_like(tmp_path):
  saved = {
    'layers': {i: np.full(1, i) for i in range(11)},
    'pairs': {('a', 1): np.ones(1), ('b', 0): np.zeros(1)},
    'a.b': {'c/d': np.ones(2)},
    'parts': (np.ones(3), [np.zeros(1)]),
  }
  with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'a', saved)
  like = jax.tree.map(np.zeros_like, saved)
  for loaded in (
    checkpoint.load(tmp_path / 'a', like=like),
    checkpoint.restore_run(tmp_path / 'a', like),
  ):
    assert jax.tree.structure(loaded) == jax.tree.structure(saved)
    jax.tree.map(np.testing.assert_array_equal, loaded, saved)


def _composite(path):
  with ocp.CheckpointManager(path) as manager:
    manager.save(
      7,
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(_params()),
        opt_state=ocp.args.PyTreeSave(_EXTRA),
        config=ocp.args.JsonSave({'width': 3}),
      ),
    )


def _checkpointables(path):
  with v1.training.Checkpointer(path) as checkpointer:
    checkpointer.save_checkpointables(
      7, {'params': _params(), 'opt_state': _EXTRA}
    )


@pytest.mark.parametrize('save', [_composite, _checkpointables])
def test_an_item_of_several_is_chosen(tmp_path, save):
  run = tmp_path / 'run'
  save(run)
  for path in (run, run / '7'):
    _assert_equal(checkpoint.load(path, item='params'), _params())
    _assert_equal(checkpoint.load(path, item='opt_state'), _EXTRA)
    restored = checkpoint.restore_run(path, _EXTRA, item='opt_state')
    np.testing.assert_array_equal(restored['mu'], _EXTRA['mu'])
    for call in (checkpoint.load, lambda p: checkpoint.restore_run(p, _EXTRA)):
      with pytest.raises(
        ValueError, match=r"holds the items \['opt_state', 'params'\]: choose"
      ) as caught:
        call(path)
      assert 'copy it again' not in str(caught.value)
    with pytest.raises(
      FileNotFoundError, match=r"\['opt_state', 'params'\]: g"
    ):
      checkpoint.load(path, item='parms')
  _assert_equal(checkpoint.load(run / '7' / 'params'), _params())
  with pytest.raises(ValueError, match=r'metadata: .* written by Orbax'):
    checkpoint.metadata(run)
  with pytest.raises(ValueError, match=r"item='params'.*leave item= out"):
    checkpoint.load(run / '7' / 'params', item='params')


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
    _assert_equal(checkpoint.load(path), saved)
    _assert_equal(checkpoint.load(path, like=saved), saved)
    _assert_equal(checkpoint.restore_run(path, saved), saved)


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


@pytest.mark.parametrize(
  'handler',
  [
    (ocp.JsonCheckpointHandler, {'a': 1}),
    (ocp.ArrayCheckpointHandler, np.ones(3)),
  ],
  ids=['json', 'array'],
)
def test_what_is_no_tree_of_arrays_is_refused(tmp_path, handler):
  make, value = handler
  with ocp.Checkpointer(make()) as checkpointer:
    checkpointer.save(tmp_path / 'a', value)
  with pytest.raises(ValueError, match='holds no tree of arrays'):
    checkpoint.load(tmp_path / 'a')


def test_flax_without_orbax_is_named(tmp_path):
  before = flax.config.flax_use_orbax_checkpointing
  flax.config.update('flax_use_orbax_checkpointing', False)
  for step in (3, 12):
    checkpoints.save_checkpoint(tmp_path, {'w': np.ones(2)}, step=step, keep=5)
  flax.config.update('flax_use_orbax_checkpointing', before)
  remedy = 'flax.serialization.msgpack_restore'
  with pytest.raises(FileNotFoundError, match=f'checkpoint_12 is .*{remedy}'):
    checkpoint.load(tmp_path)
  with pytest.raises(ValueError, match=f'is msgpack .*{remedy}'):
    checkpoint.load(tmp_path / 'checkpoint_3')
  # The remedy works.
  content = (tmp_path / 'checkpoint_3').read_bytes()
  params = flax.serialization.msgpack_restore(content)
  checkpoint.save(tmp_path / 'a.safetensors', params)
  _assert_equal(checkpoint.load(tmp_path / 'a.safetensors'), {'w': np.ones(2)})


@pytest.mark.parametrize(
  'held', ['epoch-final', 'model_0.5', '7.orbax-checkpoint-tmp-123', 'w.npz']
)
def test_nobody_is_told_to_start_afresh_over_files(tmp_path, held):
  (tmp_path / held).mkdir()
  for step in (None, 3):
    with pytest.raises(FileNotFoundError, match=f'{tmp_path} has no step') as e:
      checkpoint.restore_run(tmp_path, {'w': np.ones(1)}, step=step)
    assert held in str(e.value)
    assert 'afresh' not in str(e.value)


def test_the_steps_of_two_runs_are_told_apart(tmp_path):
  for name in ('3', 'ema_3'):
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(tmp_path / name, _EXTRA)
  (tmp_path / 'events_12').mkdir()
  message = f'{tmp_path} holds the steps of several runs, N, ema_N: give the'
  for call in (
    checkpoint.load,
    checkpoint.steps,
    lambda path: checkpoint.restore_run(path, _EXTRA),
  ):
    with pytest.raises(ValueError, match=message):
      call(tmp_path)
  _assert_equal(checkpoint.load(tmp_path / 'ema_3'), _EXTRA)


def test_own_steps_are_not_mixed_with_those_of_others(tmp_path):
  _RUNS['prefix'](tmp_path)
  with pytest.raises(ValueError, match=r'steps such as ckpt_9, .*another'):
    checkpoint.save_run(tmp_path, _EXTRA, step=13)


def test_steps_and_items_are_of_orbax(tmp_path):
  checkpoint.save(tmp_path, {'w': np.ones(1)})
  for options in ({'step': 3}, {'item': 'params'}):
    with pytest.raises(ValueError, match='neither steps nor items: leave'):
      checkpoint.load(tmp_path, **options)


def test_jax_defaults_narrow_no_leaf(tmp_path):
  _SINGLE['PyTreeCheckpointer'](tmp_path / 'a', _params())
  with jax.enable_x64(False):
    loaded = checkpoint.load(tmp_path / 'a')
  _assert_equal(loaded, _params())
