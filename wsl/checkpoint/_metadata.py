"""Metadata of checkpoints: combined over files, inherited by a save."""

from collections.abc import Iterable, Mapping
import os
import pathlib

import jax
import numpy as np

from wsl import tree, types
from wsl.checkpoint import _structure
from wsl.checkpoint._read import door, stored


def inherited(
  like: types.Params | str | os.PathLike[str], params: types.Params
) -> dict[str, str]:
  """Returns the metadata that a saved file inherits from its inputs.

  Args:
    like: the path, or leaves on demand, of a checkpoint with the metadata;
      ``None`` takes the files from which ``params`` is computed. A key with
      different values in several files is left out.
    params: the parameters to save.

  Raises:
    ValueError: if ``like`` has no leaf of a file.
  """
  if isinstance(like, (str, os.PathLike)):
    found = [door.open_path(pathlib.Path(like))]
    notes: Iterable[Mapping[str, str]] = [files.metadata for files in found]
  else:
    notes = _of_leaves(params if like is None else like)
    if like is not None and not notes:
      raise ValueError(
        'save(like=): no leaf is on demand from a file: give the path of a '
        'checkpoint, or load it with lazy=True'
      )
  shared = door.combine(notes)
  return {k: v for k, v in shared.items() if k != _structure.KEY}


def _of_leaves(params: types.Params) -> list[Mapping[str, str]]:
  """Returns the metadata of every file that leaves on demand come from."""
  found: dict[int, Mapping[str, str]] = {}
  for leaf in jax.tree.leaves(params):
    if isinstance(leaf, np.ndarray):
      continue
    for x in tree.inputs(leaf):
      fetch = getattr(x, 'fetch', None)
      if isinstance(fetch, stored.Fetch):
        notes = fetch.options.metadata
        found[id(notes)] = notes
  return list(found.values())
