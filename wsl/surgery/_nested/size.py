r"""The size of a slice: leading units of each group, leading blocks.

A group of n units has the nested prefixes of 1, ..., n units. A size is one
number for each group and for each sequence of blocks. Its numbers may be
traced, so that a compiled function takes the size as an argument.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import align, tree, types


class Size(NamedTuple):
  """The size of a slice of a network.

  Attributes:
    widths: the number of leading units that each group keeps, by its name;
      groups that are not named keep all.
    depths: the number of leading blocks that are kept, by a regular expression
      whose group captures the number of the block in a leaf's name; leaves that
      no expression matches are kept.
  """

  widths: Mapping[str, Any]
  depths: Mapping[str, Any]


def slice_size(
  symmetry: align.Symmetry,
  *,
  widths: float | Mapping[str, float] = 1.0,
  depths: Mapping[str, int] | None = None,
) -> Size:
  r"""Returns the size of a slice, from fractions or counts.

  .. math:: w_g = \begin{cases} r_g & \text{an integer: a count} \\
    \max(1, \lfloor r_g n_g \rfloor) & \text{a fraction} \end{cases}

  Groups are the axes that ``align.find_symmetry`` found free: hidden units,
  channels, heads, the units within a head. Heads are one group, so that whole
  heads are kept. Inputs and outputs are pinned and keep their size.

  Args:
    symmetry: the symmetry of the whole model.
    widths: for each group a fraction of its units, a float in (0, 1], or their
      number, an int ``>= 1``; or one fraction for all groups that depend on no
      other one (heads, but not the units within them). Groups that are not
      named keep all units.
    depths: the number of leading blocks to keep, ``>= 0``, by a regular
      expression with one group that captures the number of a block, such as
      ``{r'block_(\d+)/': 2}``, or ``{r'stage_0/block_(\d+)/': 2}`` for a stage.
      Blocks that are stacked in one leaf are cut by ``skip`` and
      ``apply_program``.

  Returns:
    The size, with a number for each group.

  Raises:
    ValueError: if a name is no group, a width or depth is out of range, or an
      expression matches no leaf.

  Example:
    >>> from wsl import align
    >>> h, x = align.Factor('h', 8), align.Factor('x', 5, 'an input')
    >>> symmetry = align.Symmetry((h, x), (('w', ((('x',),), (('h',),))),))
    >>> slice_size(symmetry, widths=0.5)
    Size(widths={'h': 4}, depths={})
    >>> slice_size(symmetry, widths={'h': 3}).widths
    {'h': 3}
  """
  groups = {group.name: group.size for group in symmetry.groups}
  if isinstance(widths, Mapping):
    check_groups(widths, symmetry, 'slice_size: widths')
    given = dict(widths)
  else:
    if _is_count(widths):
      raise ValueError(
        f'slice_size: widths={widths} is one count for all groups: give a '
        'fraction such as 0.5, or counts by group'
      )
    given = dict.fromkeys(outermost(symmetry), widths)
  counts = {
    name: _count(given.get(name, 1.0), size, name)
    for name, size in groups.items()
  }
  found = dict(depths or {})
  for pattern, depth in found.items():
    if not (_is_count(depth) and depth >= 0):
      raise ValueError(
        f"slice_size: depths['{pattern}'] is {depth!r}, expected a number of "
        'blocks, 0 or more'
      )
    _check_pattern(pattern, symmetry, 'slice_size')
  return Size(counts, {p: int(depth) for p, depth in found.items()})


def full_size(symmetry: align.Symmetry) -> Size:
  """Returns the size of the whole model.

  Args:
    symmetry: its symmetry.

  Example:
    >>> from wsl import align
    >>> h = align.Factor('w:0', 8)
    >>> full_size(align.Symmetry((h,), (('w', ((('w:0',),),)),)))
    Size(widths={'w:0': 8}, depths={})
  """
  return slice_size(symmetry)


def outermost(symmetry: align.Symmetry) -> list[str]:
  """Returns the names of the groups that depend on no other group."""
  return [
    group.name
    for group in symmetry.groups
    if all(symmetry.factor[outer].pinned for outer in group.outer)
  ]


def stack_sizes(sizes: Sequence[Size], caller: str) -> Size:
  """Stacks K sizes to one of arrays ``[K]``, int32.

  Raises:
    ValueError: if there is none, their groups or expressions differ, or they
      have no numbers.
  """
  if not sizes:
    raise ValueError(f'{caller}: no sizes given, at least one is needed')
  names = [({*size.widths}, {*size.depths}) for size in sizes]
  if names[0] == (set(), set()):
    raise ValueError(
      f'{caller}: the sizes name no group and no blocks: all units are pinned, '
      'see align.explain'
    )
  for i, found in enumerate(names):
    if found != names[0]:
      raise ValueError(
        f'{caller}: size {i} names other groups or depths than size 0: make '
        'all with slice_size of one symmetry and the same depths'
      )
  return jax.tree.map(lambda *n: np.asarray(n, np.int32), *sizes)


def check(
  params: types.Params | None,
  size: Size,
  symmetry: align.Symmetry,
  caller: str,
  *,
  traced: bool = False,
) -> None:
  """Checks a model and a size against a symmetry.

  Args:
    params: the model; ``None`` to check the size alone.
    size: the size of a slice.
    symmetry: the symmetry of the whole model.
    caller: the public function, named in the message.
    traced: whether the size may be traced.

  Raises:
    ValueError: naming the leaf, the group or the expression that does not fit.
  """
  if not isinstance(size, Size):
    raise ValueError(
      f'{caller}: the size is a {type(size).__name__}: give '
      'slice_size(symmetry, widths=..., depths=...)'
    )
  if params is not None:
    align.check_leaves(symmetry, tree.named(params), f'{caller}: params')
  if not traced and tree.is_traced(size):
    raise ValueError(
      f'{caller}: the size is traced, but shapes depend on it: use mask_units, '
      'or a size of numbers'
    )
  check_groups(size.widths, symmetry, f'{caller}: widths')
  for name, count in size.widths.items():
    n = symmetry.factor[name].size
    if not tree.is_traced(count) and not 1 <= int(count) <= n:
      raise ValueError(
        f"{caller}: {count} units of group '{name}', expected 1 .. {n}"
      )
  for pattern in size.depths:
    _check_pattern(pattern, symmetry, caller)


def check_groups(
  widths: Mapping[str, Any], symmetry: align.Symmetry, caller: str
) -> None:
  """Raises a ValueError unless all names are groups of the symmetry."""
  groups = [group.name for group in symmetry.groups]
  for name in widths:
    if name in groups:
      continue
    if name in symmetry.factor:
      raise ValueError(
        f"{caller} names '{name}', which is pinned "
        f'({symmetry.factor[name].pinned}): it keeps its size'
      )
    raise ValueError(
      f"{caller}: the symmetry has no group '{name}'"
      f'{tree.nearest(name, groups)}'
    )


def _check_pattern(pattern: str, symmetry: align.Symmetry, caller: str) -> None:
  """Raises a ValueError unless an expression captures a block's number."""
  label = f'{caller}: depths'
  numbers = [tree.layer(label, pattern, name) for name in symmetry.leaf]
  if max(numbers, default=-1) < 0:
    raise ValueError(
      f"{caller}: depths names '{pattern}', which matches no leaf: the first "
      f'are {[*symmetry.leaf][:3]}'
    )


def _count(width: Any, size: int, name: str) -> int:
  """Returns the number of units for a count or a fraction of them."""
  if _is_count(width):
    if not 1 <= width <= size:
      raise ValueError(
        f"slice_size: widths['{name}'] is {width} units, expected 1 .. {size}"
      )
    return int(width)
  if not (isinstance(width, (float, np.floating)) and 0 < width <= 1):
    raise ValueError(
      f"slice_size: widths['{name}'] is {width!r}, expected a fraction in "
      f'(0, 1] as a float, or a number of units 1 .. {size} as an int'
    )
  # In floating point 0.29 * 100 is below 29: round down with a margin.
  return max(1, math.floor(width * size + 1e-6))


def _is_count(value: Any) -> bool:
  """Returns True for an integer that is no bool."""
  return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
