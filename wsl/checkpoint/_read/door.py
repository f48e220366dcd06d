"""One door to all formats: headers are read, and every leaf is on demand.

A checkpoint is one file of any format, or shards of one format with or without
an index.
"""

from collections.abc import Iterable, Mapping
import pathlib
from typing import Any, NamedTuple

from wsl import tree, types
from wsl.checkpoint import _digests
from wsl.checkpoint._read import (
  file_bytes,
  foreign,
  messages,
  stored,
)
from wsl.checkpoint._read.folders import files as folder_files
from wsl.checkpoint._read.formats import flax_msgpack, gguf, npz
from wsl.checkpoint._read.safetensors import entry as entry_lib
from wsl.checkpoint._read.safetensors import header as header_lib
from wsl.checkpoint._read.torch import files as torch_files

_LORA = 'adapter_config.json'


class Opened(NamedTuple):
  """The tree of one or more files, and their metadata."""

  params: types.Params
  metadata: dict[str, str]


def open_path(
  path: pathlib.Path,
  *,
  item: str | None = None,
  variant: str | None = None,
  step: int | None = None,
  finite: bool = False,
  free: file_bytes.Free = None,
) -> Opened:
  """Opens a file, or the file or the shards of a folder.

  Args:
    path: a file of any format, an index of shards, or a folder.
    item: a sub-folder, or a key in a file of PyTorch or Flax.
    variant: see ``folder_files.find``.
    step: see there.
    finite: whether reading a value that is not finite is an error.
    free: see ``file_bytes.Free``.

  Raises:
    FileNotFoundError: if there is no file, or a shard is missing.
    ValueError: if a file is damaged or of another format, or a leaf is in two
      files, or in a file and not in its index.
  """
  if item is not None and (path / item).is_dir():
    path, item = path / item, None
  files = (folder_files.SINGLE, folder_files.INDEX)
  if (path / _LORA).is_file() and not any((path / f).exists() for f in files):
    raise ValueError(
      f'load: {path} is a LoRA (PEFT), factors and no weights: give it to '
      'checkpoint.load_lora(base, path)'
    )
  sources = folder_files.find(path, variant, step)
  metadata: dict[str, str] = {}
  options = stored.Options(sources.origin, finite, free, metadata)
  opened = {file: _open_file(file, options, item) for file in sources.files}
  notes = [x.metadata for x in opened.values()]
  metadata |= combine([sources.metadata, *notes])
  metadata.pop(_digests.KEY, None)
  params = {file: x.params for file, x in opened.items()}
  if sources.file_of is None and len(params) == 1:
    return Opened(next(iter(params.values())), metadata)
  return Opened(_join(sources, params), metadata)


def _open_file(
  path: pathlib.Path, options: stored.Options, item: str | None
) -> Opened:
  """Opens one file, by its first bytes."""
  messages.check_regular(path)
  kind = foreign.readable(path)
  if kind is foreign.TORCH:
    return Opened(torch_files.open_zip(path, options, item), {})
  if kind is foreign.MSGPACK:
    return Opened(flax_msgpack.open_file(path, options, item), {})
  if kind is foreign.PICKLE:
    found = torch_files.open_legacy(path, options, item)
    if found is None:
      raise foreign.error(path) or messages.damaged(path, 'it is a pickle')
    return Opened(found.params, {})
  if item is not None:
    raise ValueError(
      f'load: {path} is no folder of Orbax, and has neither steps nor items: '
      'leave item= out'
    )
  if kind is foreign.NPZ:
    return Opened(npz.open_file(path, options), {})
  if kind is foreign.GGUF:
    return Opened(*gguf.open_file(path, options))
  header = header_lib.read_header(path)
  return Opened(entry_lib.leaves(path, header, options), header.metadata)


def _join(
  sources: folder_files.Sources, params: Mapping[pathlib.Path, types.Params]
) -> dict[str, tree.Stored]:
  """Joins the leaves of shards, in the order of their index."""
  leaves: dict[str, tree.Stored] = {}
  for path, found in params.items():
    if not is_flat(found):
      raise ValueError(
        f'load: shard {path} holds no dict of tensors: give the folder of '
        'shards, or one file'
      )
    if not leaves.keys().isdisjoint(found):
      raise _in_two(next(n for n in found if n in leaves), leaves, path)
    leaves = {**leaves, **found} if leaves else found
  if sources.file_of is None:
    return leaves
  _check_index(sources, sources.file_of, params)
  return {name: leaves[name] for name in sources.file_of}


def is_flat(params: types.Params) -> bool:
  """Returns True for a dict of leaves on demand."""
  return isinstance(params, dict) and all(
    isinstance(leaf, tree.Stored) for leaf in params.values()
  )


def combine(notes: Iterable[Mapping[str, str]]) -> dict[str, str]:
  """Merges metadata; a key with two different values is left out."""
  found: dict[str, str] = {}
  conflicts = set()
  for note in notes:
    for key, value in note.items():
      if found.setdefault(key, value) != value:
        conflicts.add(key)
  return {k: v for k, v in found.items() if k not in conflicts}


def _in_two(
  name: str, leaves: dict[str, tree.Stored], path: pathlib.Path
) -> ValueError:
  """Returns the error for a leaf that two files hold."""
  fetch: Any = leaves[name].fetch
  return ValueError(
    f'load: leaf {messages.quote(name)} is in both {fetch.origin} and '
    f'{path.name}: remove one of them, or copy the checkpoint again'
  )


def _check_index(
  sources: folder_files.Sources,
  promised: Mapping[str, pathlib.Path],
  params: Mapping[pathlib.Path, types.Params],
) -> None:
  """Checks that the index and the shards agree."""
  for name, file in promised.items():
    if name not in params[file]:
      raise messages.damaged(
        sources.origin,
        f'shard {file.name} has no leaf {messages.quote(name)}, which the '
        'index promises',
      )
  for file, leaves in params.items():
    for name in leaves:
      if name not in promised:
        raise ValueError(
          f'load: shard {file.name} has a leaf {messages.quote(name)} that '
          f'{sources.origin} omits: add it to the index, or remove the index '
          'to load all shards'
        )
