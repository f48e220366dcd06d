"""Trees of arrays that Orbax has written, whichever of its handlers did.

Orbax is imported on first use, since its import takes seconds.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from wsl import tree, types


def describe(caller: str, item: pathlib.Path) -> types.Tree:
  """Returns the tree of an item, leaves with shape and dtype.

  Args:
    caller: the function that error messages name.
    item: the folder of the item, see ``layout.find_item``.

  Returns:
    Dicts and lists; a tuple was saved as a list, a NamedTuple as a dict. The
    leaf of a string has neither shape nor dtype.

  Raises:
    ValueError: if the item is damaged, or was written by T5X.
  """
  import orbax.checkpoint as ocp

  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    try:
      described = checkpointer.metadata(item).item_metadata
      if described is not None:
        return described.tree
      # Before 2024 Orbax wrote no metadata; shapes are those of the arrays.
      old = checkpointer.restore(item)
    except Exception as error:
      raise damaged(caller, item, error) from error
  for name, leaf in tree.named(old).items():
    if not hasattr(leaf, 'dtype') and not isinstance(leaf, (int, float)):
      raise ValueError(
        f"{caller}: leaf '{name}' of {item} is {leaf!r:.40}, not an array (was "
        'it written by T5X?): convert it with the program that wrote it'
      )
  return old


def load(
  item: pathlib.Path, places: dict[str, jax.sharding.Sharding] | None
) -> types.Tree:
  """Loads the tree of an item, see ``describe``.

  Args:
    item: as for ``describe``.
    places: the sharding of each name; ``None`` gives numpy arrays. Strings are
      strings.
  """
  import orbax.checkpoint as ocp

  def target(name: str, leaf: Any) -> Any:
    if not hasattr(leaf, 'dtype'):
      return ocp.RestoreArgs(restore_type=str)
    if places is None or tree.narrowed(leaf.dtype):
      return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=places[name])

  targets = tree.map_named(target, describe('load', item))
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    try:
      args = ocp.args.PyTreeRestore(restore_args=targets)
      return checkpointer.restore(item, args=args)
    except Exception as error:
      raise damaged('load', item, error) from error


def restore(item: pathlib.Path, like: types.Tree) -> types.Tree:
  """Loads an item in the structure, dtypes and shardings of ``like``."""
  import orbax.checkpoint as ocp

  # Orbax has no scalars of numpy.
  array = lambda x: np.asarray(x) if isinstance(x, np.generic) else x
  like = jax.tree.map(array, like)
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    try:
      targets = ocp.checkpoint_utils.construct_restore_args(like)
      args = ocp.args.PyTreeRestore(item=like, restore_args=targets)
      return checkpointer.restore(item, args=args)
    except Exception as error:
      raise damaged('restore_run', item, error) from error


def damaged(
  caller: str, where: pathlib.Path, error: Exception, name: str | None = None
) -> ValueError:
  """Returns the error for a step, or a leaf of it, that cannot be read."""
  first = str(error).partition('\n')[0][:200]
  what = where if name is None else f"leaf '{name}' of {where}"
  return ValueError(
    f'{caller}: {what} cannot be read, take an earlier step or copy it again '
    f'({type(error).__name__}: {first})'
  )
