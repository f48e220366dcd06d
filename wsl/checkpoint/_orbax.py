"""Runs: any pytree (parameters, optimizer state, step), saved by Orbax.

Orbax does atomic writes, sharded and multi-process saving, and the removal of
old steps. It is imported on first use, since its import takes seconds.
"""

import os
import pathlib
from typing import Any, TYPE_CHECKING

import jax
import numpy as np

from wsl import tree, types

if TYPE_CHECKING:
  import orbax.checkpoint as ocp

_ITEM = 'default'


def save_run(
  path: str | os.PathLike[str],
  state: types.Tree,
  *,
  step: int,
  keep: int | None = None,
) -> None:
  """Saves the state of a run; an interrupted save leaves no step.

  Every process of a multi-process run calls this.

  Args:
    path: the run's folder; it is created if it does not exist.
    state: any pytree of arrays, numbers and random keys; leaves on demand are
      read.
    step: the number of the step, not saved before.
    keep: the number of newest steps to keep; ``None`` keeps all.

  Raises:
    ValueError: if the step exists.

  Example:
    >>> import tempfile
    >>> import jax.numpy as jnp
    >>> from wsl import checkpoint
    >>> folder = tempfile.mkdtemp()
    >>> checkpoint.save_run(folder, {'w': jnp.ones(2), 'step': 5}, step=5)
    >>> checkpoint.restore_run(folder, {'w': jnp.zeros(2), 'step': 0})
    {'step': 5, 'w': Array([1., 1.], dtype=...)}
  """
  import orbax.checkpoint as ocp

  with _manager(path, create=True, keep=keep) as manager:
    if step in manager.all_steps():
      raise ValueError(
        f'save_run: {path} has step {step} already: choose another'
      )
    manager.save(step, args=ocp.args.StandardSave(tree.read(state)), force=True)


def restore_run(
  path: str | os.PathLike[str], like: types.Tree, *, step: int | None = None
) -> types.Tree:
  """Restores the state of a run.

  Args:
    path: the run's folder.
    like: a state of the structure to return and of the saved shapes. A leaf
      takes the dtype and sharding of ``like``, whatever mesh it was saved from;
      leaves may be ``jax.ShapeDtypeStruct``.
    step: which step; ``None`` takes the newest.

  Returns:
    The state.

  Raises:
    FileNotFoundError: if there is no run, or no such step.
    ValueError: if ``like`` does not fit, or the step is damaged.
  """
  import orbax.checkpoint as ocp

  present = steps(path)
  step = present[-1] if step is None and present else step
  if step not in present:
    wanted = 'no step' if step is None else f'no step {step}'
    raise FileNotFoundError(
      f'restore_run: {path} has {wanted}, its steps are {present}: check the '
      'path, or start afresh'
    )
  where = pathlib.Path(path, str(step))
  with _manager(path, create=False) as manager:
    _check_fits(manager, where, like)
    try:
      return manager.restore(step, args=ocp.args.StandardRestore(like))
    except Exception as error:
      raise _damaged('restore_run', where, error) from error


def steps(path: str | os.PathLike[str]) -> list[int]:
  """Returns the complete steps of a run, oldest first.

  Args:
    path: the run's folder; it need not exist.

  Returns:
    A list of numbers, the newest last; empty if there is no step.

  Example:
    >>> from wsl import checkpoint
    >>> checkpoint.steps('no such run')
    []
  """
  if not pathlib.Path(path).is_dir():
    return []
  with _manager(path, create=False) as manager:
    return sorted(manager.all_steps())


def is_orbax(path: pathlib.Path) -> bool:
  """Returns True for a folder written by Orbax: a run, a step or an item."""
  marks = ('_CHECKPOINT_METADATA', '_METADATA')
  folders = (path, *(path / str(step) for step in _numbers(path)[-1:]))
  return any((folder / mark).exists() for folder in folders for mark in marks)


def describe(path: pathlib.Path) -> types.Tree:
  """Returns the tree of a checkpoint, leaves with shape and dtype.

  Args:
    path: a folder for which ``is_orbax`` is true; the newest step of a run.

  Returns:
    Dicts, lists and tuples; a NamedTuple was saved as a dict.
  """
  import orbax.checkpoint as ocp

  item = _item(path)
  with ocp.StandardCheckpointer() as checkpointer:
    try:
      return checkpointer.metadata(item).item_metadata.tree
    except Exception as error:
      raise _damaged('load', item, error) from error


def load(
  path: pathlib.Path, places: dict[str, jax.sharding.Sharding] | None
) -> types.Tree:
  """Loads the tree of a checkpoint, see ``describe``.

  Args:
    path: as for ``describe``.
    places: the sharding of each name; ``None`` gives numpy arrays.
  """
  import orbax.checkpoint as ocp

  def target(name: str, leaf: Any) -> Any:
    # Orbax restores to numpy for a numpy target; a broadcast zero has the shape
    # without the memory.
    if places is None:
      return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places[name])

  targets, item = tree.map_named(target, describe(path)), _item(path)
  with ocp.StandardCheckpointer() as checkpointer:
    try:
      return checkpointer.restore(item, targets)
    except Exception as error:
      raise _damaged('load', item, error) from error


def _item(path: pathlib.Path) -> pathlib.Path:
  """Returns the folder of the arrays: the newest step's item, if it has one."""
  numbers = _numbers(path)
  step = path / str(numbers[-1]) if numbers else path
  return (step / _ITEM if (step / _ITEM).is_dir() else step).absolute()


def _numbers(path: pathlib.Path) -> list[int]:
  """Returns the subfolders whose names are numbers, sorted."""
  if not path.is_dir():
    return []
  return sorted(int(p.name) for p in path.iterdir() if p.name.isdecimal())


def _manager(
  path: str | os.PathLike[str], *, create: bool, keep: int | None = None
) -> 'ocp.CheckpointManager':
  """Opens a run, saving synchronously so that errors surface in the call."""
  import orbax.checkpoint as ocp

  return ocp.CheckpointManager(
    pathlib.Path(path).absolute(),
    item_handlers=ocp.StandardCheckpointHandler(),
    options=ocp.CheckpointManagerOptions(
      create=create,
      max_to_keep=keep,
      enable_async_checkpointing=False,
      save_root_metadata=False,
    ),
  )


def _check_fits(
  manager: 'ocp.CheckpointManager', where: pathlib.Path, like: types.Tree
) -> None:
  """Compares names and shapes with the saved ones, naming the first misfit."""
  try:
    described = manager.item_metadata(int(where.name)).tree
  except Exception as error:
    raise _damaged('restore_run', where, error) from error
  saved, wanted = tree.named(described), tree.named(like)
  for name in wanted.keys() - saved.keys():
    raise ValueError(
      f"restore_run: {where} has no leaf '{name}'"
      f'{tree.nearest(name, list(saved))}: like must have the saved structure'
    )
  for name in saved.keys() - wanted.keys():
    raise ValueError(
      f"restore_run: {where} has a leaf '{name}' that like does not have"
      f'{tree.nearest(name, list(wanted))}'
    )
  for name, leaf in wanted.items():
    # A random key is saved as an array of words, of another shape.
    is_key = jax.dtypes.issubdtype(
      getattr(leaf, 'dtype', np.float32), jax.dtypes.prng_key
    )
    if not is_key and np.shape(leaf) != saved[name].shape:
      raise ValueError(
        f"restore_run: leaf '{name}' of {where} has shape "
        f'{saved[name].shape}, like has {np.shape(leaf)}'
      )


def _damaged(caller: str, where: pathlib.Path, error: Exception) -> ValueError:
  """Returns the error for a step that Orbax cannot read."""
  first = str(error).partition('\n')[0][:200]
  return ValueError(
    f'{caller}: {where} cannot be read, take an earlier step or copy it again '
    f'({type(error).__name__}: {first})'
  )
