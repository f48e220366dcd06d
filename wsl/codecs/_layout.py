"""The tensors of a pack in a file, and the record of its structure.

Structure, names, shapes and settings are JSON, compressed by zlib, as base 85:
they would be a sixth of the file of a LoRA otherwise, and are one percent of
it.
"""

import base64
from collections.abc import Callable
import dataclasses
import json
import math
from typing import Any
import zlib

import jax
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree
from wsl.codecs import _masks, _packed
from wsl.codecs._blocks import leaf as blocks_lib
from wsl.codecs._low_rank import codes as codes_lib
from wsl.codecs._ternary import leaf as ternary

VERSION = 1
CODEC, TREE = 'wsl.codecs', 'wsl.codecs.tree'
SMALL = '0'
# Arrays of fewer bytes share one tensor: an entry of the header takes 70 bytes.
_OWN_TENSOR = 1 << 16
_LONGEST = 1 << 28
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
# What reading a record raises that this version has not written.
DAMAGES = (
  *(KeyError, ValueError, TypeError, IndexError, AttributeError),
  zlib.error,
)


def layout(
  packed: _packed.Packed,
) -> tuple[dict[str, Any], dict[str, str]]:
  """Returns the tensors and the metadata of the file of a pack."""
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
  text = _zip(record)
  blob = np.concatenate([np.empty(0, np.uint8), *small])
  return (
    {SMALL: blob, **own},
    {CODEC: f'{packed.codec} {VERSION}', TREE: text},
  )


def _zip(record: Any) -> str:
  """Returns nested lists and dicts as text."""
  text = json.dumps(record, ensure_ascii=False, separators=(',', ':'))
  return base64.b85encode(zlib.compress(text.encode(), 9)).decode()


def _unzip(text: str) -> Any:
  """Inverts ``_zip``; a text that grows without bounds is damaged."""
  inflate = zlib.decompressobj()
  found = inflate.decompress(base64.b85decode(text), _LONGEST)
  if not inflate.eof:
    raise ValueError('it is too long, or not complete')
  return json.loads(found)


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


def rebuild(text: str, tensors: dict[str, Any], small: np.ndarray) -> Any:
  """Inverts ``layout``, from the record, all tensors, and the shared one.

  Raises:
    Exception: one of ``DAMAGES``, if the record is not one of this version.
  """
  record = _unzip(text)
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
