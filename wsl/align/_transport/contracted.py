"""Which axes of a leaf a model sums over."""

from collections.abc import Iterator, Mapping
import re

from wsl import tree, types
from wsl.align import _symmetry


def factors(
  params: types.Params,
  symmetry: _symmetry.Symmetry,
  views: Mapping[str, tree.Matrix | None],
) -> dict[str, frozenset[int]]:
  """Lists the factors of each leaf that its product contracts.

  No leaf's product contracts the units of queries and keys, which are
  multiplied with each other. Of such a group the leaves with the opposite power
  of a scale or a linear map are listed, where the symmetry has one.

  Args:
    params: the fixed model.
    symmetry: its symmetry.
    views: ``stats.matrix_views`` of the model.

  Returns:
    For each leaf the positions among all factors of its axes, in order.

  Raises:
    ValueError: naming the leaf of several axes without a rule.
  """
  rules = [(re.compile(pattern), view) for pattern, view in views.items()]
  known = {group.name for group in symmetry.groups}
  found: dict[str, set[int]] = {}
  summed: set[str] = set()
  for name in tree.named(params):
    rows = _rows(name, symmetry, rules)
    places = _places(symmetry, name)
    mine = [(k, f) for k, axis, _, _, f in places if axis in rows]
    found[name] = {k for k, _ in mine}
    summed |= {f for _, f in mine} & known
  for action in symmetry.actions:
    if action.kind not in ('scale', 'linear') or action.factor in summed:
      continue
    for power in action.powers:
      if power.power < 0 and power.leaf in found:
        found[power.leaf] |= {
          k
          for k, *place, _ in _places(symmetry, power.leaf)
          if place == [power.axis, power.segment, power.factor]
        }
  return {name: frozenset(numbers) for name, numbers in found.items()}


def _places(
  symmetry: _symmetry.Symmetry, leaf: str
) -> Iterator[tuple[int, int, int, int, str]]:
  """Yields number, axis, segment, position and name of a leaf's factors."""
  number = 0
  for i, axis in enumerate(symmetry.leaf[leaf]):
    for j, segment in enumerate(axis):
      for k, name in enumerate(segment):
        yield number, i, j, k, name
        number += 1


def _rows(
  name: str,
  symmetry: _symmetry.Symmetry,
  rules: list[tuple[re.Pattern[str], tree.Matrix | None]],
) -> tuple[int, ...]:
  """Returns the axes of a leaf that its product contracts."""
  for pattern, view in rules:
    if pattern.search(name):
      return () if view is None else tuple(view.rows)
  axes = symmetry.plan(name)
  free = any(not f.pinned for axis in axes for part in axis for f in part)
  if free and len(axes) > 1:
    raise ValueError(
      f"transport: leaf '{name}' has no rule in views=: it has several uses, "
      'such as a tied table, or is altered first; untie it, or add a rule'
    )
  return ()  # a bias or a scale
