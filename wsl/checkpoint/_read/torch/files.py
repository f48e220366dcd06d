"""PyTorch's files: zip archives since 1.6, a stream of pickles before."""

import functools
import math
import os
import pathlib
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from wsl import tree, types
from wsl.checkpoint._read import archive, file_bytes, messages, sizes, stored
from wsl.checkpoint._read.formats import values
from wsl.checkpoint._read.torch import globals as globals_lib
from wsl.checkpoint._read.torch import instructions, machine

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LONGEST_PICKLE = 1 << 30
_REMEDY = (
  'only tensors, containers, numbers and strings are read: choose the weights '
  'by item=, or save the state_dict alone'
)


class Found(NamedTuple):
  """The tree of a file before PyTorch 1.6."""

  params: types.Tree


class Place(NamedTuple):
  """Where the bytes of a storage are."""

  start: int
  nbytes: int


def open_zip(
  path: pathlib.Path, options: stored.Options, item: str | None
) -> types.Tree:
  """Returns the tree of a zip archive, tensors as leaves on demand.

  Raises:
    FileNotFoundError: if there is no such item.
    ValueError: if the file is damaged, or its pickle asks for anything but
      tensors, containers, numbers and strings.
  """
  members, file = archive.members(path)
  (pickled,) = [x for x in members if x.endswith('data.pkl')][:1]
  folder = pickled.removesuffix('data.pkl')
  order = _member(file, members.get(f'{folder}byteorder'))
  if order not in (b'', b'little'):
    raise ValueError(
      f'load: {path} was written by a big-endian machine: save it again there '
      'as safetensors'
    )
  program = _member(file, members[pickled])
  content = _run(path, program, item=item)
  prefix = f'{folder}data/'
  places = {
    name.removeprefix(prefix): Place(member.start, member.nbytes)
    for name, member in members.items()
    if name.startswith(prefix) and not member.packed
  }
  return _tree(content, places, file, options, item, len(program))


def open_legacy(
  path: pathlib.Path, options: stored.Options, item: str | None
) -> Found | None:
  """Returns the tree of a file before PyTorch 1.6; ``None`` for other pickles.

  Four pickles (a magic number, a version, the machine, the content), the list
  of the storages' keys, then for each its length and its bytes.

  Raises:
    As ``open_zip``.
  """
  with open(path, 'rb') as opened:
    stamp = file_bytes.stamp_of(os.fstat(opened.fileno()))
    try:
      if machine.run(opened) != _MAGIC:
        return None
    except (instructions.RefusedError, ValueError):
      return None
    version, system = _run(path, opened), _run(path, opened)
    little = isinstance(system, dict) and system.get('little_endian')
    if type(version) is not int or version != _PROTOCOL or not little:
      raise ValueError(
        f'load: {path} is of an unknown version of PyTorch, or of a big-endian '
        'machine: save it again as safetensors'
      )
    named = machine.Named({}, [])
    start = opened.tell()
    content = _run(path, opened, named, item)
    size = opened.tell() - start
    keys = _run(path, opened)
    places = _places(path, opened, keys, named.storages, stamp[0])
  file = file_bytes.FileBytes(path, stamp)
  return Found(_tree(content, places, file, options, item, size))


def _places(
  path: pathlib.Path,
  opened: BinaryIO,
  keys: Any,
  storages: dict[str, machine.Storage],
  size: int,
) -> dict[str, Place]:
  """Returns the bytes of the storages that follow the pickles."""
  widths = {name: x.kind.itemsize for name, x in storages.items()}
  places, start = {}, opened.tell()
  for key in keys if isinstance(keys, list) else [None]:
    opened.seek(start)
    length = int.from_bytes(opened.read(8), 'little')
    nbytes = length * widths.get(str(key)[:99], 0)
    start += 8 + nbytes
    if not isinstance(key, str) or key not in widths or start > size:
      raise messages.damaged(path, 'its storages are cut')
    places[key] = Place(start - nbytes, nbytes)
  return places


def _member(file: file_bytes.FileBytes, member: archive.Member | None) -> bytes:
  """Returns the bytes of a small member; nothing if there is none."""
  if member is None:
    return b''
  if member.packed or member.nbytes > _LONGEST_PICKLE:
    raise messages.damaged(file.path, 'its pickle is compressed or too long')
  out = np.empty(member.nbytes, np.uint8)
  file.read_into(out, member.start, name='data.pkl')
  return out.tobytes()


def _run(
  path: pathlib.Path,
  program: bytes | BinaryIO,
  named: machine.Named | None = None,
  item: str | None = None,
) -> Any:
  """Runs a pickle; its faults become one line.

  A name that is not in the table is refused even where it has no effect,
  unless the caller chooses a part of the content.
  """
  named = machine.Named({}, []) if named is None else named
  try:
    content = machine.run(program, named)
  except instructions.RefusedError as refused:
    raise _refused(path, str(refused)) from None
  except ValueError as error:
    what = messages.shorten(error)
    raise messages.damaged(path, what) from None
  if named.refused and item is None:
    raise _refused(path, messages.quote(named.refused[0]))
  return content


def _refused(path: pathlib.Path, what: str) -> ValueError:
  """Returns the error for a pickle that asks for more than tensors."""
  return ValueError(
    f'load: {path} is refused, its pickle asks for {what}: {_REMEDY}'
  )


def _tree(
  content: Any,
  places: dict[str, Place],
  file: file_bytes.FileBytes,
  options: stored.Options,
  item: str | None,
  budget: int,
) -> types.Tree:
  """Returns the content with tensors as leaves on demand."""
  return values.convert(
    file.path,
    values.choose(file.path, content, item),
    functools.partial(_leaf, file, places, options),
    arrays=(globals_lib.Tensor, globals_lib.Global, machine.Opaque),
    budget=budget + 1,
  )


def _leaf(
  file: file_bytes.FileBytes,
  places: dict[str, Place],
  options: stored.Options,
  name: str,
  tensor: globals_lib.Tensor | globals_lib.Global | machine.Opaque,
) -> tree.Stored | str:
  """Returns a tensor as a leaf on demand; a dtype as its name."""
  if isinstance(tensor, machine.Opaque):
    raise _refused(file.path, messages.quote(tensor.name))
  if isinstance(tensor, globals_lib.Global):
    return tensor.name
  place = places.get(tensor.storage.key)
  width = tensor.dtype.itemsize
  stop = (tensor.offset + tensor.extent()) * width
  if place is None or stop > place.nbytes:
    raise messages.damaged(
      file.path, f'the storage of leaf {messages.quote(name)} is cut or missing'
    )
  nbytes = math.prod(tensor.shape) * width
  if sizes.is_bomb(nbytes, place.nbytes):
    raise messages.damaged(
      file.path,
      f'leaf {messages.quote(name)} expands {place.nbytes} bytes to {nbytes}',
    )
  start = place.start + tensor.offset * width
  fetch = stored.Fetch(name, tensor.dtype, tensor.shape, file, start, options)
  if not tensor.is_contiguous():
    read = functools.partial(_strided, file, name, start, tensor)
    fetch = fetch._replace(whole=read)
  return stored.leaf(fetch)


def _strided(
  file: file_bytes.FileBytes, name: str, start: int, tensor: globals_lib.Tensor
) -> np.ndarray:
  """Reads the part of a storage that a view covers, and takes its entries."""
  entries = np.empty(tensor.extent(), tensor.dtype)
  file.read_into(entries, start, name=name)
  strides = tuple(s * entries.itemsize for s in tensor.strides)
  return np.lib.stride_tricks.as_strided(entries, tensor.shape, strides)
