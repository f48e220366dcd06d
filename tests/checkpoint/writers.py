"""The savers of Orbax and of Flax: runs with steps, and single trees."""

import flax
from flax.training import checkpoints
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.experimental import v1

from wsl import tree


def params(scale=1.0):
  """Returns parameters of several dtypes, and more than ten layers."""
  return {
    'dense': {'kernel': np.full((2, 3), scale, np.float32)},
    'half': jnp.full(2, scale, jnp.bfloat16),
    'wide': np.full(2, scale, np.float64),
    'count': np.full(1, 2**40, np.int64),
    'layers': [np.full(1, i) for i in range(11)],
  }


EXTRA = {'mu': np.zeros(3, np.float32)}


def assert_equal(got, want):
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
      manager.save(step, args=args(params(step)))
      manager.wait_until_finished()


def _legacy_manager(path):
  with ocp.CheckpointManager(
    path, {'params': ocp.PyTreeCheckpointer()}
  ) as manager:
    for step in (9, 12):
      manager.save(step, {'params': params(step)})


def _training(path):
  with v1.training.Checkpointer(path) as checkpointer:
    for step in (9, 12):
      checkpointer.save(step, params(step))


def _flax(path):
  before = flax.config.flax_use_orbax_checkpointing
  flax.config.update('flax_use_orbax_checkpointing', True)
  for step in (9, 12):
    checkpoints.save_checkpoint(path, params(step), step=step, keep=5)
  flax.config.update('flax_use_orbax_checkpointing', before)


# Each writes steps 9 and 12.
RUNS = {
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


def _save_by(make, **options):
  def save(path, params):
    with make(**options) as checkpointer:
      checkpointer.save(path, params)

  return save


# Each writes one tree, without steps.
SINGLE = {
  'StandardCheckpointer': _save_by(ocp.StandardCheckpointer),
  'PyTreeCheckpointer': _save_by(ocp.PyTreeCheckpointer),
  'without OCDBT': _save_by(ocp.PyTreeCheckpointer, use_ocdbt=False),
  'zarr3': _save_by(ocp.PyTreeCheckpointer, use_zarr3=True),
  'v1': v1.save,
}
