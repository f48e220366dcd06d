"""Bricks: named slices of the leaves of a model.

A brick is an emergent or added module of a network: hidden units, heads, a
layer of a scan, an expert. Here it is a dict from the names of leaves to the
slice that belongs to it. The verbs of modular models are

========  ====================================================================
route     ``models.top_k_gates``, ``merge.route``, ``routing``
retrieve  ``retrieve_brick(params, brick)``: the values of a brick
merge     ``merge.weighted_mean(tree.stack([a, b]), weights)`` of values
update    ``update_brick(params, brick, values)``: all else bit-identical
grow      ``grow_brick(params, brick, values)``: more units, layers, experts
========  ====================================================================

All but route need weights alone, and no data. An update with the retrieved
values restores every bit. Grow is undone by the retrieval of the old indices; a
merge cannot be undone.
"""

from collections.abc import Mapping
import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from wsl import align, tree, types


class BrickSlice(NamedTuple):
  """The part of a leaf that belongs to a brick.

  Attributes:
    axis: an axis of the leaf.
    entries: indices along it, ``[..., m]``; more than one axis for a stack of
      bricks.
    parts: the number of equal consecutive parts of the axis, each of which is
      indexed: 2 for the units of a fused gate and up projection.
  """

  axis: int
  entries: np.ndarray
  parts: int = 1


Brick: TypeAlias = Mapping[str, BrickSlice]


def brick_of_units(
  symmetry: align.Symmetry, index: Any, *, group: str | None = None
) -> dict[str, BrickSlice]:
  """Returns the brick of some units of a group, in every leaf that has them.

  Args:
    symmetry: the symmetry of the model, of ``align.find_symmetry``.
    index: which units, integers ``[..., m]``, each once in a row.
    group: the name of the group; not needed if the symmetry has only one.

  Returns:
    A slice for each leaf with an axis of the group.

  Raises:
    ValueError: if there is no such group, an index is out of range or occurs
      twice, or an axis mixes the units with others.

  Example:
    >>> from wsl import align
    >>> h, x = align.Factor('h', 4), align.Factor('x', 2, 'an input')
    >>> up, down = ((('x',),), (('h',),)), ((('h',),), (('x',),))
    >>> symmetry = align.Symmetry((h, x), (('up', up), ('down', down)))
    >>> brick = brick_of_units(symmetry, [0, 3])
    >>> {name: (p.axis, p.entries.tolist()) for name, p in brick.items()}
    {'up': (1, [0, 3]), 'down': (0, [0, 3])}

  Reference:
    Xiao et al., "Configurable Foundation Models: Building LLMs from a Modular
    Perspective", 2024, arXiv:2409.02877.
  """
  found = group_of('brick_of_units', symmetry, group)
  index = _checked('brick_of_units', index, found.size)
  brick = {}
  for name, axes in symmetry.leaf.items():
    for i, axis in enumerate(axes):
      if not any(found.name in segment for segment in axis):
        continue
      if name in brick or any(segment != (found.name,) for segment in axis):
        raise ValueError(
          f"brick_of_units: leaf '{name}' has the units of '{found.name}' on "
          'two axes, or next to others on one: give its slices by hand'
        )
      brick[name] = BrickSlice(i, index, len(axis))
  return brick


def brick_of_entries(
  params: types.Params, leaves: types.Leaves, index: Any, *, axis: int = 0
) -> dict[str, BrickSlice]:
  """Returns the brick of some entries along one axis of some leaves.

  Args:
    params: a model, in memory or on demand.
    leaves: a regular expression searched in the names, or a predicate, such as
      ``'experts/'`` for stacked experts ``[E, ...]``, or ``'^layers/'`` for the
      layers of a scan.
    index: which entries, integers ``[..., m]``, each once in a row.
    axis: the axis; negative ones count from the end.

  Returns:
    A slice for each of these leaves.

  Raises:
    ValueError: if no leaf matches, or an index is out of range or occurs twice.

  Example:
    >>> import jax.numpy as jnp
    >>> params = {'experts': {'w': jnp.ones((4, 2))}, 'router': jnp.ones(4)}
    >>> brick_of_entries(params, '^experts/', [1])
    {'experts/w': BrickSlice(axis=0, entries=array([1], dtype=int32), parts=1)}
  """
  try:
    chosen = tree.named(tree.select(params, leaves))
  except ValueError as error:
    raise ValueError(f'brick_of_entries: {error}') from None
  brick = {}
  for name, leaf in tree.named(params).items():
    if chosen[name]:
      rank = len(leaf.shape)
      if not -rank <= axis < rank:
        raise ValueError(
          f"brick_of_entries: leaf '{name}' of shape {tuple(leaf.shape)} has "
          f'no axis {axis}: match other leaves'
        )
      size = leaf.shape[axis]
      where = f"brick_of_entries: leaf '{name}'"
      brick[name] = BrickSlice(axis % rank, _checked(where, index, size))
  return brick


def group_of(
  caller: str, symmetry: align.Symmetry, name: str | None = None
) -> align.Factor:
  """Returns a group of a symmetry, by its name or the only one."""
  groups = {g.name: g for g in symmetry.groups if not g.outer}
  if name is None and len(groups) == 1:
    return next(iter(groups.values()))
  if name is None or name not in groups:
    hint = '' if name is None else tree.nearest(name, list(groups))
    raise ValueError(
      f'{caller}: group={name!r}: choose one of {list(groups)[:4]}, the groups '
      f'that depend on no other{hint}'
    )
  return groups[name]


def check_fits(
  caller: str, params: types.Params, symmetry: align.Symmetry
) -> None:
  """Checks that the leaves are those of a symmetry.

  Raises:
    ValueError: naming the leaf that is missing, unknown or of another shape.
  """
  leaves = tree.named(params)
  names = dict.fromkeys(symmetry.leaf, True)
  tree.check_names(f'{caller}: params', leaves, 'the symmetry', names)
  for name, leaf in leaves.items():
    shape = tuple(
      sum(math.prod(factor.size for factor in segment) for segment in axis)
      for axis in symmetry.plan(name)
    )
    if tuple(leaf.shape) != shape:
      raise ValueError(
        f"{caller}: leaf '{name}' has shape {tuple(leaf.shape)}, the symmetry "
        f'was found for {shape}: find that of this model'
      )


def _checked(caller: str, index: Any, size: int) -> np.ndarray:
  """Returns indices as int32, after checks."""
  found = np.asarray(index)
  if found.ndim < 1 or not (found.size == 0 or found.dtype.kind in 'iu'):
    raise ValueError(f'{caller}: index: expected integers [..., m]')
  if found.size and not (found.min() >= 0 and found.max() < size):
    raise ValueError(
      f'{caller}: index is {found.min()} .. {found.max()}, expected '
      f'0 .. {size - 1}'
    )
  if (np.diff(np.sort(found, -1), axis=-1) == 0).any():
    raise ValueError(f'{caller}: an index occurs twice: give each once')
  return found.astype(np.int32)
