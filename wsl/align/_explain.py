"""Formats a symmetry as a table."""

from collections.abc import Sequence
import math

from wsl.align import _blocks, _symmetry


def explain(symmetry: _symmetry.Symmetry) -> str:
  """Formats the groups of each axis of each leaf, and a list of all groups.

  Factors of an axis are joined by ``*``, segments by ``+``; ``1`` is a segment
  of a single index. Segments that alternate are in parentheses.

  Args:
    symmetry: any symmetry.

  Returns:
    Lines of text: for each axis its size and its groups, or why it is pinned;
    for each group its size, the number of axes it permutes, its outer factors
    and the decimal logarithm of its order; for each action its dimension, and
    the operation that allows no larger one: scales in place of signs, linear
    maps in place of scales and rotations; for other factors, the operation that
    allows no sign, or no phase.

  Example:
    >>> hidden = _symmetry.Factor('a:1', 3)
    >>> inputs = _symmetry.Factor('a:0', 2, 'an axis of the input')
    >>> axes = (('a', ((('a:0',),), (('a:1',),))),)
    >>> print(explain(_symmetry.Symmetry((inputs, hidden), axes)))
    leaf  axis  size  group
    a     0     2     pinned: an axis of the input
          1     3     a:1
    <BLANKLINE>
    group  size  axes  depends on  log10 order
    a:1    3     1                 0.8
    <BLANKLINE>
    1 group, order 10^0.8
  """
  rows = [('leaf', 'axis', 'size', 'group')]
  for name in symmetry.leaf:
    axes = symmetry.layout(name)
    for i, axis in enumerate(axes):
      size = sum(part.size for part in axis)
      rows.append(('' if i else name, str(i), str(size), _axis(axis)))
    if not axes:
      rows.append((name, '', '', 'a scalar'))
  groups = [('group', 'size', 'axes', 'depends on', 'log10 order')]
  for group in symmetry.groups:
    *outer, size = symmetry.table_shape(group.name)
    order = math.prod(outer) * math.lgamma(size + 1) / math.log(10)
    count, twice = _occurrences(symmetry, group.name)
    quadratic = ', twice in one block' if twice else ''
    groups.append(
      (
        group.name,
        str(size),
        f'{count}{quadratic}',
        ', '.join(group.outer),
        f'{order:.1f}',
      )
    )
  parts = ['\n'.join(_table(rows)), '\n'.join(_table(groups))]
  if symmetry.actions:
    parts.append('\n'.join(_table(_actions(symmetry))))
  permuted = _without_actions(symmetry)
  if len(permuted) > 1:
    parts.append('\n'.join(_table(permuted)))
  many = len(symmetry.groups)
  total = (
    f'{many} group{"s" * (many != 1)}, order 10^{symmetry.log10_order:.1f}'
  )
  dimension = sum(
    _dimension(action, symmetry.action_shape(action.name))
    for action in symmetry.actions
  )
  if dimension:
    total += f', and a continuous group of dimension {dimension}'
  return '\n\n'.join([*parts, total])


def _actions(symmetry: _symmetry.Symmetry) -> list[tuple[str, ...]]:
  """Returns the rows of the actions: where each acts, and its dimension."""
  limits = dict(symmetry.limits)
  rows: list[tuple[str, ...]] = [
    ('action', 'leaves', 'dimension', 'not larger, because of')
  ]
  for action in symmetry.actions:
    leaves = dict.fromkeys(p.leaf for p in action.powers)
    shape = symmetry.action_shape(action.name)
    note = ' that fix the mean' if action.ones else ''
    note = ' of modulus 1' if action.unit else note
    rows.append(
      (
        action.name + note,
        str(len(leaves)),
        'signs' if action.kind == 'sign' else str(_dimension(action, shape)),
        _limit(action, limits),
      )
    )
  return rows


def _limit(action: _symmetry.Action, limits: dict[str, str]) -> str:
  """Returns the operation that allows no larger gauge than an action."""
  if action.kind == 'phase':
    return ''
  linear = limits.get(action.factor, '')
  if action.kind == 'sign':
    return limits.get(f'scale {action.factor}', linear)
  return linear


def _without_actions(symmetry: _symmetry.Symmetry) -> list[tuple[str, ...]]:
  """Returns the factors that no action acts on, and why there is no sign."""
  limits = dict(symmetry.limits)
  rows: list[tuple[str, ...]] = [('factor', 'no action, because of')]
  acting = {
    name
    for action in symmetry.actions
    for p in action.powers
    for name in (
      symmetry.leaf[p.leaf][p.axis][p.segment][p.factor],
      *action.over,
    )
  }
  for name, factor in symmetry.factor.items():
    reason = limits.get(name if factor.pinned else f'sign {name}')
    if reason is not None and name not in acting:
      rows.append((name, reason))
  return rows


def _dimension(action: _symmetry.Action, shape: tuple[int, ...]) -> int:
  """Returns the dimension of the group of an action; 0 of signs."""
  n = shape[-1] - action.ones
  if action.kind == 'rotation':
    return math.prod(shape[:-2]) * n * (n - 1) // 2
  if action.kind == 'phase' and action.unit:
    return math.prod(shape[:-1])
  return 0 if action.kind == 'sign' else math.prod(shape)


def _axis(axis: tuple[_blocks.Part, ...]) -> str:
  """Formats one axis."""
  segments, _ = _blocks.flatten(axis)
  factors = [factor for segment in segments for factor in segment]
  if not factors:
    return 'size 1' if len(axis) == 1 else 'single indices'
  reasons = list(dict.fromkeys(f.pinned for f in factors))
  if all(reasons):
    return f'pinned: {"; ".join(reasons)}'
  return _sum(axis)


def _sum(parts: tuple[_blocks.Part, ...]) -> str:
  """Formats a sum of parts; an inner sum is in parentheses."""
  return ' + '.join(
    ' * '.join(
      [*map(_factor, part.factors)]
      + ([f'({_sum(part.parts)})'] if part.parts else [])
    )
    or '1'
    for part in parts
  )


def _factor(factor: _symmetry.Factor) -> str:
  """Formats one factor."""
  if not factor.pinned:
    return factor.name
  return f'[{factor.size} pinned: {factor.pinned}]'


def _occurrences(symmetry: _symmetry.Symmetry, name: str) -> tuple[int, bool]:
  """Counts the axes of a factor; True if it occurs twice in one block."""
  count, twice = 0, False
  for axes in symmetry.leaf.values():
    most = [max(s.count(name) for s in axis) for axis in axes]
    count += sum(n > 0 for n in most)
    twice |= sum(most) > 1
  return count, twice


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
  """Formats rows as lines of aligned columns."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  return [
    '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    for row in rows
  ]
