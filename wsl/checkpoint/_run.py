"""Runs: any pytree (parameters, optimizer state, step), saved by Orbax.

Orbax does atomic writes, and sharded and multi-process saving. It is imported
on first use, since its import takes seconds. Old steps are removed here: a step
that Orbax was removing when it was killed looks complete.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from wsl import tree, types
from wsl.checkpoint import _shard_digests
from wsl.checkpoint._read.orbax import layout, lazy, restore
from wsl.checkpoint._write import lock


def save_run(
  path: str | os.PathLike[str],
  state: types.Tree,
  *,
  step: int,
  keep: int | None = None,
  checksums: bool = False,
) -> None:
  """Saves the state of a run; an interrupted save leaves no step.

  The next save removes the temporary files of an interrupted one. Every process
  of a multi-process run calls this.

  Args:
    path: the run's folder; it is created if it does not exist.
    state: any pytree of arrays, numbers and random keys; leaves on demand are
      read.
    step: the number of the step, not saved before.
    keep: the number of newest steps to keep; ``None`` keeps all.
    checksums: whether the step records the SHA-256 of each shard of each leaf,
      which ``restore_run`` and ``load`` verify. Each process hashes the shards
      that it writes.

  Raises:
    BlockingIOError: if another process or thread saves a step of the run.
    ValueError: if the step exists, the folder holds steps under other names
      (``ckpt_7``), or ``keep`` is not positive.

  Example:
    >>> import tempfile
    >>> import jax.numpy as jnp
    >>> from wsl import checkpoint
    >>> folder = tempfile.mkdtemp()
    >>> checkpoint.save_run(folder, {'w': jnp.ones(2), 'step': 5}, step=5)
    >>> checkpoint.restore_run(folder, {'w': jnp.zeros(2), 'step': 0})
    {'step': 5, 'w': Array([1., 1.], dtype=...)}
  """
  folder = pathlib.Path(path)
  if keep is not None and keep < 1:
    raise ValueError(
      f'save_run(keep={keep}): give the number of steps, or None'
    )
  _check_step(folder, step)
  state = tree.read(state)
  with _locked(folder):
    notes = _shard_digests.record(state) if checksums else None
    _save_step(folder, state, step, notes)
    if keep is not None and jax.process_index() == 0:
      _remove_steps(folder, keep)


def restore_run(
  path: str | os.PathLike[str],
  like: types.Tree,
  *,
  step: int | None = None,
  item: str | None = None,
) -> types.Tree:
  """Restores the state of a run.

  If the step records hashes (``save_run(checksums=True)``), each process first
  reads and verifies the shards that its devices will hold, in the dtype in
  which they were saved. This reads them twice.

  Args:
    path: the run's folder, written by ``save_run`` or by another program with
      Orbax (see ``load``); or the folder of a step or of an item.
    like: a state of the structure to return and of the saved shapes. A leaf
      takes the dtype and sharding of ``like``, whatever mesh it was saved from;
      leaves may be ``jax.ShapeDtypeStruct``.
    step: which step; ``None`` takes the newest.
    item: which tree of the step, such as ``'params'``; ``None`` takes the only
      one, or ``'default'``.

  Returns:
    The state.

  Raises:
    FileNotFoundError: if there is no run, or no such step or item; the message
      lists those there are.
    ValueError: if ``like`` does not fit, the step has several items, or it is
      damaged, or a leaf does not have its recorded hash, naming it.
  """
  where = layout.find_item('restore_run', pathlib.Path(path), step, item)
  _check_fits(where, like)
  lazy.verify('restore_run', where, like)
  return restore.restore(where, like)


def steps(path: str | os.PathLike[str]) -> list[int]:
  """Returns the complete steps of a run, oldest first.

  Args:
    path: the run's folder; it need not exist. The names of steps may have a
      prefix and leading zeros, as in ``ckpt_0007``.

  Returns:
    A list of numbers, the newest last; empty if there is no step.

  Raises:
    ValueError: if the names of the steps have several prefixes.

  Example:
    >>> from wsl import checkpoint
    >>> checkpoint.steps('no such run')
    []
  """
  return list(layout.steps('steps', pathlib.Path(path)))


def _check_step(run: pathlib.Path, step: int) -> None:
  """Checks that a step can be added to a run."""
  present = layout.steps('save_run', run)
  if step in present:
    raise ValueError(f'save_run: {run} has step {step} already: choose another')
  for folder in present.values():
    if not folder.name.isdecimal():
      raise ValueError(
        f'save_run: {run} holds steps such as {folder.name}, which another '
        'program has written: choose another folder'
      )


@contextlib.contextmanager
def _locked(run: pathlib.Path) -> Iterator[None]:
  """Excludes other writers; the first process of a run holds the lock."""
  if jax.process_index():
    yield
    return
  run.mkdir(parents=True, exist_ok=True)
  with lock.hold(run / '.lock', f'save_run: {run}'):
    yield


def _save_step(
  run: pathlib.Path,
  state: types.Tree,
  step: int,
  notes: dict[str, Any] | None,
) -> None:
  """Saves synchronously, so that errors surface in the call."""
  import orbax.checkpoint as ocp

  with ocp.CheckpointManager(
    run.absolute(),
    item_handlers=ocp.StandardCheckpointHandler(),
    options=ocp.CheckpointManagerOptions(
      enable_async_checkpointing=False,
      save_root_metadata=False,
      cleanup_tmp_directories=True,
    ),
  ) as manager:
    args = ocp.args.StandardSave(state, custom_metadata=notes)
    manager.save(step, args=args, force=True)


def _remove_steps(run: pathlib.Path, keep: int) -> None:
  """Removes all but the newest steps, each under the name of an unfinished one.

  Readers and the next save take what a kill leaves for an unfinished save.
  """
  present = list(layout.steps('save_run', run).values())
  for folder in present[:-keep]:
    unfinished = folder.with_name(folder.name + layout.UNFINISHED)
    folder.rename(unfinished)
    shutil.rmtree(unfinished)


def _check_fits(where: pathlib.Path, like: types.Tree) -> None:
  """Compares names and shapes with the saved ones, naming the first misfit."""
  described = restore.describe('restore_run', where)
  saved, wanted = tree.named(described), tree.named(like)
  for name in (name for name in wanted if name not in saved):
    raise ValueError(
      f"restore_run: {where} has no leaf '{name}'"
      f'{tree.nearest(name, list(saved))}: like must have the saved structure'
    )
  for name in (name for name in saved if name not in wanted):
    raise ValueError(
      f"restore_run: {where} has a leaf '{name}' that like does not have"
      f'{tree.nearest(name, list(wanted))}'
    )
  for name, leaf in wanted.items():
    # A random key is saved as an array of words, of another shape.
    is_key = jax.dtypes.issubdtype(
      getattr(leaf, 'dtype', np.float32), jax.dtypes.prng_key
    )
    shape = getattr(saved[name], 'shape', ())  # a string has none
    if not is_key and np.shape(leaf) != shape:
      raise ValueError(
        f"restore_run: leaf '{name}' of {where} has shape {shape}, like has "
        f'{np.shape(leaf)}'
      )
