"""The numbered blocks of any parameters: take them out, put others in."""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types

# The name of a leaf within its block: the text before and after the number.
Place = tuple[str, str]
Block = dict[Place, Any]


class Item(NamedTuple):
  """A key of a list or a tuple."""

  number: int
  kind: type

  def __str__(self) -> str:
    return str(self.number)


@dataclasses.dataclass(frozen=True)
class Form:
  """Where the leaves of the blocks are in a tree; hashable.

  Attributes:
    stacked: whether the leaves of all blocks are stacked ``[D, ...]``.
    paths: for each leaf of a block its key path, the index of the key that has
      the number, the text of the key before and after the number, and the
      digits of the number, more than one if it begins with a zero.
    outside: the key path of each leaf outside the blocks.
  """

  stacked: bool
  paths: tuple[tuple[Place, tuple[Any, ...], int, str, str, int], ...]
  outside: tuple[tuple[Any, ...], ...]


@dataclasses.dataclass(frozen=True)
class Cut:
  """A tree as its blocks and the leaves outside of them."""

  blocks: tuple[Block, ...]
  outside: tuple[Any, ...]
  form: Form


def cut(label: str, params: types.Params, blocks: str) -> Cut:
  r"""Groups the leaves by the number of their block.

  Args:
    label: the name of the public function, for messages.
    params: any pytree of dicts, lists and tuples.
    blocks: a regular expression, searched in the names ``'a/b/c'``. One group
      captures the number of the block, ``r'layers[./](\d+)[./]'``. Without a
      group it matches the leaves in which all blocks are stacked.

  Returns:
    The blocks in order, and the rest.

  Raises:
    ValueError: if no leaf matches, a number is missing, or stacked leaves have
      different numbers of blocks.
  """
  pattern = tree.compiled(blocks)
  if pattern.groups > 1:
    raise ValueError(
      f"{label}: blocks='{blocks}' has {pattern.groups} groups: expected one, "
      r'the number of the block, as in (\d+), or none for stacked leaves'
    )
  leaves = jax.tree_util.tree_leaves_with_path(params)
  found: dict[int, Block] = {}
  paths: dict[Place, tuple[tuple[Any, ...], int, str, str, int]] = {}
  outside, outside_paths = [], []
  for path, leaf in leaves:
    keys = _keys(label, params, path)
    name = '/'.join(map(str, keys))
    match = pattern.search(name)
    if not match:
      outside.append(leaf)
      outside_paths.append(keys)
      continue
    if not pattern.groups:
      place = (name, '')
      paths[place] = (keys, -1, '', '', 1)
      for i, x in enumerate(_unstack(label, name, leaf)):
        found.setdefault(i, {})[place] = x
      continue
    place, number, at = _numbered(label, name, keys, match)
    found.setdefault(number, {})[place] = leaf
    paths.setdefault(place, (keys, *at))
  if not found:
    examples = ['/'.join(map(str, p)) for p in outside_paths[:3]]
    raise ValueError(
      f"{label}: blocks='{blocks}' matches no leaf, among {examples}: give the "
      'expression of the names of the blocks'
    )
  form = Form(
    not pattern.groups,
    tuple((place, *at) for place, at in paths.items()),
    tuple(outside_paths),
  )
  _check_numbers(label, found, stacked=form.stacked)
  ordered = tuple(found[i] for i in range(len(found)))
  return Cut(ordered, tuple(outside), form)


def join(
  blocks: Sequence[Mapping[Place, Any]], outside: Sequence[Any], form: Form
) -> types.Params:
  """Inverts ``cut``: returns the tree with other blocks, numbered from 0."""
  leaves: dict[tuple[Any, ...], Any] = dict(zip(form.outside, outside))
  for place, keys, at, before, after, digits in form.paths:
    if form.stacked:
      columns = [block[place] for block in blocks]
      leaves[keys] = tree.apply_kernel(_stack, *columns)
      continue
    for i, block in enumerate(blocks):
      if place in block:
        key = _renumber(keys[at], f'{before}{i:0{digits}}{after}')
        leaves[(*keys[:at], key, *keys[at + 1 :])] = block[place]
  return _nested(leaves)


def name(place: Place) -> str:
  """Returns the name of a leaf within its block."""
  before, after = place
  return f'{before}{after}' if not after else f'{before}#{after}'


def _numbered(
  label: str, name: str, keys: tuple[Any, ...], match: re.Match[str]
) -> tuple[Place, int, tuple[int, str, str, int]]:
  """Returns a leaf's place, its number, and the key that has the number."""
  if not match[1].isdecimal():
    raise ValueError(
      f"{label}: '{match[1]}' in leaf '{name}' is no block number: capture it "
      r'by (\d+)'
    )
  start, stop = match.span(1)
  offset = 0
  for i, key in enumerate(keys):
    text = str(key)
    if start < offset + len(text):
      cut_at = start - offset, stop - offset
      digits = len(match[1]) if match[1][0] == '0' else 1
      parts = text[: cut_at[0]], text[cut_at[1] :], digits
      return (name[:start], name[stop:]), int(match[1]), (i, *parts)
    offset += len(text) + 1
  raise AssertionError(name)


def _keys(
  label: str, params: types.Params, path: tuple[Any, ...]
) -> tuple[Any, ...]:
  """Returns the keys of dicts, and the items of lists and tuples."""
  keys, node = [], params
  for step in path:
    if isinstance(step, jax.tree_util.DictKey):
      key: Any = step.key
    elif isinstance(step, jax.tree_util.SequenceKey):
      key = Item(step.idx, tuple if isinstance(node, tuple) else list)
    else:
      raise ValueError(
        f"{label}: a node with '{step}' is no dict, list or tuple: give nested "
        'dicts of arrays'
      )
    keys.append(key)
    node = node[key.number if isinstance(key, Item) else key]
  return tuple(keys)


def _renumber(key: Any, text: str) -> Any:
  """Returns a key with another number, of the type of the old one."""
  if isinstance(key, Item):
    return Item(int(text), key.kind)
  return int(text) if isinstance(key, int) else text


def _nested(leaves: Mapping[tuple[Any, ...], Any]) -> Any:
  """Returns nested dicts, lists and tuples of leaves by key path."""
  if () in leaves:
    return leaves[()]
  children: dict[Any, dict[tuple[Any, ...], Any]] = {}
  for keys, leaf in leaves.items():
    children.setdefault(keys[0], {})[keys[1:]] = leaf
  nodes = {key: _nested(below) for key, below in children.items()}
  first = next(iter(nodes), None)
  if not isinstance(first, Item):
    return nodes
  ordered = sorted(nodes, key=lambda key: key.number)
  return first.kind(nodes[key] for key in ordered)


def _unstack(label: str, name: str, leaf: Any) -> list[Any]:
  """Returns the blocks of a stacked leaf."""
  if not leaf.ndim:
    raise ValueError(
      f"{label}: leaf '{name}' is a number, no stack of blocks: blocks= has to "
      'match stacked leaves only'
    )
  size = int(leaf.shape[0])
  return [tree.apply_kernel(_take, leaf, index=i) for i in range(size)]


def _check_numbers(
  label: str, found: Mapping[int, Block], *, stacked: bool
) -> None:
  """Checks that blocks are numbered from 0, and stacks have one length."""
  for i in range(max(found)):
    if i not in found:
      raise ValueError(
        f'{label}: no leaf of block {i}, of blocks 0..{max(found)}: number '
        'them from 0 without gaps'
      )
  places = found[0]
  for i, block in found.items():
    if stacked and set(block) != set(places):
      place = min(set(block) ^ set(places))
      raise ValueError(
        f"{label}: leaf '{place[0]}' has another number of blocks than others "
        f'({i} or more): blocks= has to match stacked leaves only'
      )


def _take(x: types.Array, *, index: types.Scalar) -> types.Array:
  """Returns one block of a stacked leaf."""
  return jax.lax.dynamic_index_in_dim(x, index, 0, keepdims=False)


def _stack(*leaves: types.Array) -> types.Array:
  """Stacks the blocks of a leaf."""
  return jnp.stack(leaves)
