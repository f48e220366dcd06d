"""Names by position: equal leaves of different layers share programs."""

from collections.abc import Mapping
from typing import Any

from wsl.align import _blocks
from wsl.align._gauges import elements


def rename(
  layout: _blocks.Layout,
  acts: tuple[elements.Act, ...],
  tables: Mapping[str, Any],
) -> tuple[_blocks.Layout, tuple[elements.Act, ...], dict[str, Any]]:
  """Numbers factors and actions in the order in which a leaf has them.

  Args:
    layout: the axes of the leaf.
    acts: the actions on it.
    tables: the tables of its groups and actions, with duals.

  Returns:
    The same, with the new names; reasons of pinned factors are left out.

  Example:
    >>> from wsl import align
    >>> layout = ((_blocks.Part((align.Factor('layer_7:0', 2),)),),)
    >>> rename(layout, (), {'layer_7:0': [1, 0]})[2]
    {'f0': [1, 0]}
  """
  factors = [
    factor
    for axis in layout
    for segment in _blocks.flatten(axis)[0]
    for factor in segment
  ]
  names = dict.fromkeys(factor.name for factor in factors)
  new = {name: f'f{i}' for i, name in enumerate(names)}
  actions = dict.fromkeys(act.name for act in acts)
  own = {name: f'a{i}' for i, name in enumerate(actions)}
  own |= {elements.dual_of(n): elements.dual_of(x) for n, x in own.items()}

  def of_factor(factor: Any) -> Any:
    outer = tuple(new.get(name, name) for name in factor.outer)
    return factor._replace(name=new[factor.name], pinned='', outer=outer)

  def of_part(part: _blocks.Part) -> _blocks.Part:
    factors = tuple(map(of_factor, part.factors))
    return _blocks.Part(factors, tuple(map(of_part, part.parts)))

  def of_act(act: elements.Act) -> elements.Act:
    over = tuple(new[name] for name in act.over)
    return act._replace(name=own[act.name], over=over)

  return (
    tuple(tuple(map(of_part, axis)) for axis in layout),
    tuple(map(of_act, acts)),
    {(new | own)[name]: table for name, table in tables.items()},
  )
