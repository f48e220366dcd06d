"""The choice of a step and an item, and the errors of a choice."""

import flax
from flax.training import checkpoints
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.experimental import v1
import pytest

from tests.checkpoint import writers
from wsl import checkpoint

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')


def _composite(path):
  with ocp.CheckpointManager(path) as manager:
    manager.save(
      7,
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(writers.params()),
        opt_state=ocp.args.PyTreeSave(writers.EXTRA),
        config=ocp.args.JsonSave({'width': 3}),
      ),
    )


def _checkpointables(path):
  with v1.training.Checkpointer(path) as checkpointer:
    checkpointer.save_checkpointables(
      7, {'params': writers.params(), 'opt_state': writers.EXTRA}
    )


@pytest.mark.parametrize('save', [_composite, _checkpointables])
def test_an_item_of_several_is_chosen(tmp_path, save):
  run = tmp_path / 'run'
  save(run)
  for path in (run, run / '7'):
    writers.assert_equal(checkpoint.load(path, item='params'), writers.params())
    writers.assert_equal(checkpoint.load(path, item='opt_state'), writers.EXTRA)
    restored = checkpoint.restore_run(path, writers.EXTRA, item='opt_state')
    np.testing.assert_array_equal(restored['mu'], writers.EXTRA['mu'])
    for call in (
      checkpoint.load,
      lambda p: checkpoint.restore_run(p, writers.EXTRA),
    ):
      with pytest.raises(
        ValueError, match=r"holds the items \['opt_state', 'params'\]: choose"
      ) as caught:
        call(path)
      assert 'copy it again' not in str(caught.value)
    with pytest.raises(
      FileNotFoundError, match=r"\['opt_state', 'params'\]: g"
    ):
      checkpoint.load(path, item='parms')
  writers.assert_equal(checkpoint.load(run / '7' / 'params'), writers.params())
  with pytest.raises(ValueError, match=r'metadata: .* written by Orbax'):
    checkpoint.metadata(run)
  with pytest.raises(ValueError, match=r"item='params'.*leave item= out"):
    checkpoint.load(run / '7' / 'params', item='params')


def test_metrics_keys_and_arrays_are_not_items(tmp_path):
  options = ocp.CheckpointManagerOptions(best_fn=lambda metrics: metrics['acc'])
  with ocp.CheckpointManager(
    tmp_path, options=options, metadata={'who': 'x'}
  ) as manager:
    args = ocp.args.Composite(
      params=ocp.args.StandardSave(writers.params()),
      rng=ocp.args.JaxRandomKeySave(jax.random.key(0)),
      ema=ocp.args.ArraySave(np.ones(3)),
    )
    manager.save(3, args=args, metrics={'acc': 0.5})
  assert checkpoint.steps(tmp_path) == [3]
  writers.assert_equal(checkpoint.load(tmp_path), writers.params())


@pytest.mark.parametrize(
  'handler',
  [
    (ocp.JsonCheckpointHandler, {'a': 1}),
    (ocp.ArrayCheckpointHandler, np.ones(3)),
  ],
  ids=['json', 'array'],
)
def test_items_that_are_not_trees_of_arrays_are_refused(tmp_path, handler):
  make, value = handler
  with ocp.Checkpointer(make()) as checkpointer:
    checkpointer.save(tmp_path / 'a', value)
  with pytest.raises(ValueError, match='holds no tree of arrays'):
    checkpoint.load(tmp_path / 'a')


def test_flax_without_orbax_is_read(tmp_path):
  before = flax.config.flax_use_orbax_checkpointing
  flax.config.update('flax_use_orbax_checkpointing', False)
  for step in (3, 12):
    params = {'w': np.full(2, step)}
    checkpoints.save_checkpoint(tmp_path, params, step=step, keep=5)
  flax.config.update('flax_use_orbax_checkpointing', before)
  for path, options, value in [
    (tmp_path, {}, 12),
    (tmp_path, {'step': 3}, 3),
    (tmp_path / 'checkpoint_3', {}, 3),
  ]:
    loaded = checkpoint.load(path, **options)
    writers.assert_equal(loaded, {'w': np.full(2, value)})
  with pytest.raises(FileNotFoundError, match=r"no step 4, .*\['3', '12'\]"):
    checkpoint.load(tmp_path, step=4)


@pytest.mark.parametrize(
  'held', ['epoch-final', 'model_0.5', '7.orbax-checkpoint-tmp-123', 'w.npz']
)
def test_no_advice_to_start_afresh_in_a_folder_with_files(tmp_path, held):
  (tmp_path / held).mkdir()
  for step in (None, 3):
    with pytest.raises(FileNotFoundError, match=f'{tmp_path} has no step') as e:
      checkpoint.restore_run(tmp_path, {'w': np.ones(1)}, step=step)
    assert held in str(e.value)
    assert 'afresh' not in str(e.value).replace(str(tmp_path), '')


def test_steps_with_several_prefixes_are_refused(tmp_path):
  for name in ('3', 'ema_3'):
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(tmp_path / name, writers.EXTRA)
  (tmp_path / 'events_12').mkdir()
  message = f'{tmp_path} holds the steps of several runs, N, ema_N: give the'
  for call in (
    checkpoint.load,
    checkpoint.steps,
    lambda path: checkpoint.restore_run(path, writers.EXTRA),
  ):
    with pytest.raises(ValueError, match=message):
      call(tmp_path)
  writers.assert_equal(checkpoint.load(tmp_path / 'ema_3'), writers.EXTRA)


def test_own_steps_are_not_mixed_with_those_of_others(tmp_path):
  writers.RUNS['prefix'](tmp_path)
  with pytest.raises(ValueError, match=r'steps such as ckpt_9, .*another'):
    checkpoint.save_run(tmp_path, writers.EXTRA, step=13)


def test_safetensors_have_neither_steps_nor_items(tmp_path):
  checkpoint.save(tmp_path, {'w': np.ones(1)})
  for options in ({'step': 3}, {'item': 'params'}):
    with pytest.raises(ValueError, match='neither steps nor items: leave'):
      checkpoint.load(tmp_path, **options)
