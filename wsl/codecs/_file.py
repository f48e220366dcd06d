"""One file of safetensors for a pack, with a header that says what it is."""

from collections.abc import Callable
import dataclasses
import json
import math
import os
from typing import Any

import jax
import numpy as np

from wsl import checkpoint, merge, tree
from wsl import deltas as deltas_lib
from wsl.codecs import _masks, _packed
from wsl.codecs._blocks import leaf as blocks_lib
from wsl.codecs._low_rank import codes as codes_lib
from wsl.codecs._ternary import leaf as ternary

VERSION = 1
_CODEC, _TREE = 'wsl.codecs', 'wsl.codecs.tree'
_SMALL = '0'
# Arrays of fewer bytes share one tensor: an entry of the header takes 70 bytes.
_OWN_TENSOR = 1 << 16
# The nodes that a file may hold, by their names in it.
_NODES: dict[str, Any] = {
  'ternary': ternary.Ternary,
  'bits': _masks.Bits,
  'codes': codes_lib.Codes,
  'segment': codes_lib.Segment,
  'sign_blocks': blocks_lib.SignBlocks,
  'factors': deltas_lib.Factors,
}
_NAMES = {kind: name for name, kind in _NODES.items()}


def save(
  path: str | os.PathLike[str],
  packed: _packed.Packed,
  *,
  checksums: bool = False,
  progress: Callable[[str, int, int], None] | None = None,
) -> None:
  """Saves a pack as one safetensors file: at once, or not at all.

  The metadata of the file name the codec and the version of the format. Arrays
  of fewer than 64 KiB share one tensor, as the header would be larger than they
  are. Leaves on demand are computed one after the other.

  Args:
    path: ``NAME.safetensors``.
    packed: of any codec.
    checksums: whether the SHA-256 of each tensor is recorded, which ``load``
      verifies.
    progress: as in ``checkpoint.save``.

  Raises:
    ValueError: if ``packed`` is no pack, ``path`` no name of a safetensors
      file, or a value is not finite.
    OSError: as ``checkpoint.save``.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import codecs, tree
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'a.safetensors')
    >>> delta = {'w': np.asarray([1.0, -4.0], np.float32)}
    >>> codecs.save(file, codecs.compeft(delta, density=0.5, scale='mean'))
    >>> tree.read(codecs.decode(codecs.load(file)))['w'].tolist()
    [0.0, -4.0]
  """
  if not str(path).endswith('.safetensors'):
    raise ValueError(f"save: {path} has to end with '.safetensors': rename it")
  tensors, metadata = layout(packed)
  checkpoint.save(
    path, tensors, metadata=metadata, checksums=checksums, progress=progress
  )


def load(path: str | os.PathLike[str], *, lazy: bool = False) -> _packed.Packed:
  """Loads a pack that ``codecs.save`` has written.

  Args:
    path: the file.
    lazy: whether arrays of at least 64 KiB are on demand: then ``decode`` reads
      a leaf's codes from the file when the leaf is read.

  Returns:
    The pack, equal to the saved one.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file is truncated or damaged, no pack, or of another
      version.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import codecs
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'a.safetensors')
    >>> codecs.save(file, codecs.compeft({'w': np.ones(2)}, density=0.5))
    >>> codecs.load(file, lazy=True).codec
    'compeft'
  """
  notes = checkpoint.metadata(path)
  codec, _, version = notes.get(_CODEC, '').partition(' ')
  if _TREE not in notes or not version:
    raise ValueError(
      f'load: {path} is no pack of wsl.codecs: checkpoint.load reads models'
    )
  if version != str(VERSION):
    raise ValueError(
      f'load: {path} is of version {version[:20]} of wsl.codecs, this wsl '
      f'reads {VERSION}: update wsl, or save it again'
    )
  tensors = checkpoint.load(path, lazy=True)
  small = np.asarray(tree.read(tensors[_SMALL]))
  if not lazy:
    tensors = tree.read(tensors)
  try:
    leaves = _rebuild(json.loads(notes[_TREE]), tensors, small)
    if codec in ('tall_masks', 'emr'):
      leaves = merge.TallMasks(**leaves)
  except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
    what = ' '.join(repr(error).split())[:60]
    raise ValueError(
      f'load: {path} is damaged, copy it again: its record is wrong, {what}'
    ) from None
  return _packed.Packed(leaves, codec)


def layout(
  packed: _packed.Packed,
) -> tuple[dict[str, Any], dict[str, str]]:
  """Returns the tensors and the metadata of the file of a pack."""
  if not isinstance(packed, _packed.Packed):
    raise ValueError(
      f'save: got a {type(packed).__name__}, expected a codecs.Packed: '
      'checkpoint.save writes task vectors'
    )
  own: dict[str, Any] = {}
  small: list[np.ndarray] = []

  def place(x: Any) -> Any:
    """Describes an array: its dtype, shape and, if it has one, its tensor."""
    x = x if hasattr(x, 'dtype') else np.asarray(x, np.float32)
    row = [x.dtype.name, list(x.shape)]
    if math.prod(x.shape) * x.dtype.itemsize >= _OWN_TENSOR:
      own[str(len(own) + 1)] = x
      return [*row, len(own)]
    values = np.asarray(tree.read(x), order='C')
    small.append(values.reshape(-1).view(np.uint8))
    return row

  nodes: dict[str, Any] = {}

  def describe(x: Any) -> str:
    nodes[str(len(nodes))] = _describe(x, place)
    return str(len(nodes) - 1)

  names = jax.tree.map(describe, packed.leaves, is_leaf=_is_node)
  record = {'tree': tree.record(names), 'leaves': list(nodes.values())}
  text = json.dumps(record, ensure_ascii=False, separators=(',', ':'))
  blob = np.concatenate([np.empty(0, np.uint8), *small])
  return (
    {_SMALL: blob, **own},
    {_CODEC: f'{packed.codec} {VERSION}', _TREE: text},
  )


def _is_node(x: Any) -> bool:
  return type(x) in _NAMES


def _describe(x: Any, place: Callable[[Any], Any]) -> Any:
  """Returns a leaf as JSON; its arrays are placed in order."""
  if x is None:
    return None
  if not _is_node(x):
    return place(x)
  fields = {
    field.name: getattr(x, field.name) for field in dataclasses.fields(x)
  }
  return {_NAMES[type(x)]: {k: _field(v, place) for k, v in fields.items()}}


def _field(value: Any, place: Callable[[Any], Any]) -> Any:
  """Returns a field of a node as JSON: an array, a node, or a setting."""
  if isinstance(value, tree.Matrix):
    return {'view': dataclasses.astuple(value)}
  if isinstance(value, tuple) and value and all(map(_is_node, value)):
    return {'all': [_describe(x, place) for x in value]}
  if isinstance(value, (str, tuple, int)):
    return {'is': value}
  return _describe(value, place)


def _rebuild(record: Any, tensors: dict[str, Any], small: np.ndarray) -> Any:
  """Inverts ``layout``."""
  at = 0

  def array(dtype: str, shape: list[int], own: int = 0) -> Any:
    nonlocal at
    if own:
      found = tensors[str(own)]
      if found.dtype.name != dtype or list(found.shape) != shape:
        raise ValueError(f'tensor {own} has another shape')
      return found
    kind = np.dtype(dtype)
    end = at + math.prod(shape) * kind.itemsize
    values = small[at:end].copy().view(kind).reshape(shape)
    at = end
    return values

  def leaf(node: Any) -> Any:
    if node is None or isinstance(node, list):
      return None if node is None else array(*node)
    ((name, value),) = node.items()
    if name == 'view':
      rows, columns, batch, groups = value
      return tree.Matrix(tuple(rows), tuple(columns), tuple(batch), groups)
    if name == 'all':
      return tuple(map(leaf, value))
    if name == 'is':
      return _tuples(value)
    return _NODES[name](**{k: leaf(v) for k, v in value.items()})

  leaves = {str(i): leaf(node) for i, node in enumerate(record['leaves'])}
  if at != len(small):
    raise ValueError('it does not use all bytes')
  return tree.rebuild(record['tree'], leaves)


def _tuples(value: Any) -> Any:
  """Returns a setting with tuples for the lists of JSON."""
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
