"""Tests numerically the symmetries that tracing cannot prove.

A router selects experts by rank. If equal scores are common, or not shown to be
rare, the axis of experts is pinned: ``top_k`` breaks ties by position. A
permutation of the experts may still leave the output unchanged, and random
tests show it.
"""

from collections.abc import Callable, Sequence
import dataclasses
import itertools
from typing import Any

from wsl import types
from wsl.align import _symmetry
from wsl.align._check import outputs, trials

_NEVER = (  # reasons that no test can overrule
  'an axis of the input',
  'an axis of the output',
  'the function does not use it',
)


def certify(
  symmetry: _symmetry.Symmetry,
  suspects: Sequence[tuple[str, str]],
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: tuple[Any, ...],
  key: types.PRNGKey,
) -> _symmetry.Symmetry:
  """Frees pinned factors that pass a numerical test.

  A factor passes if, for several random models and permutations, the output is
  unchanged up to 1000 roundings, while it changes if one leaf alone is
  permuted. The second condition refuses factors whose effect the inputs do not
  show. Then groups that always occur with the factor, such as the hidden units
  of experts, are tested for a dependence on its index.

  Args:
    symmetry: the symmetry that tracing proves.
    suspects: pairs of factors to permute together: indices of one are looked
      up in the other.
    apply_fn: the function ``apply_fn(params, *inputs)``.
    params: its parameters, or their shapes.
    inputs: its other arguments, arrays.
    key: draws models and permutations.

  Returns:
    The symmetry with the additional groups.
  """
  run = outputs.compiled(apply_fn, inputs)
  for names in _components(symmetry, suspects):
    freed = _identify(symmetry, names)
    factor = freed.factor[names[0]]
    if trials.passes(freed, factor, run, params, key):
      symmetry = freed
  # Looking up rows by index hides that their units belong to one expert.
  looked_up = dict.fromkeys(name for pair in suspects for name in pair)
  for name in looked_up:
    found = symmetry.factor.get(name)
    if found is not None and not found.pinned:
      for inner in _inner_groups(symmetry, name):
        changed = _replace(symmetry, inner)
        if trials.passes(changed, inner, run, params, key):
          symmetry = changed
  return symmetry


def _inner_groups(
  symmetry: _symmetry.Symmetry, outer: str
) -> list[_symmetry.Factor]:
  """Returns groups that occur only with a factor, made to depend on it."""
  depends = {name for f in symmetry.factors for name in f.outer}
  found = []
  for group in symmetry.groups:
    counts = {
      block.count(outer)
      for _, axes in symmetry.axes
      for choice in itertools.product(*axes)
      if group.name in (block := tuple(itertools.chain(*choice)))
    }
    known = group.name in depends or outer in group.outer
    # The block-wise count is the condition on ``Factor.outer``: the outer
    # factor occurs exactly once in every block of the inner one.
    if counts == {1} and not known and group.name != outer:
      found.append(group._replace(outer=(outer, *group.outer)))
  return found


def _replace(
  symmetry: _symmetry.Symmetry, factor: _symmetry.Factor
) -> _symmetry.Symmetry:
  """Replaces the factor of the same name."""
  factors = (factor if f.name == factor.name else f for f in symmetry.factors)
  return dataclasses.replace(symmetry, factors=tuple(factors))


def _components(
  symmetry: _symmetry.Symmetry, suspects: Sequence[tuple[str, str]]
) -> list[list[str]]:
  """Returns the connected components of the suspects that are pinned."""
  looked_up = {name for pair in suspects for name in pair}
  group = {
    f.name: {f.name}
    for f in symmetry.factors
    if f.name in looked_up and f.pinned and not f.pinned.startswith(_NEVER)
  }
  for a, b in suspects:
    if a in group and b in group and group[a] is not group[b]:
      group[a] |= group[b]
      for name in group[b]:
        group[name] = group[a]
  # Members of a component share one set; its id identifies the component.
  order = [f.name for f in symmetry.factors]
  found = {id(s): sorted(s, key=order.index) for s in group.values()}
  return list(found.values())


def _identify(
  symmetry: _symmetry.Symmetry, names: Sequence[str]
) -> _symmetry.Symmetry:
  """Identifies several factors and frees the result, named as the first."""
  rename = lambda name: names[0] if name in names else name

  def one(factor: _symmetry.Factor) -> _symmetry.Factor:
    if factor.name == names[0]:
      return factor._replace(pinned='')
    outer = tuple(dict.fromkeys(map(rename, factor.outer)))
    return factor._replace(outer=outer)

  factors = [f for f in symmetry.factors if f.name not in names[1:]]
  axes = tuple(
    (leaf, tuple(tuple(tuple(map(rename, s)) for s in axis) for axis in rows))
    for leaf, rows in symmetry.axes
  )
  return dataclasses.replace(
    symmetry, factors=tuple(map(one, factors)), axes=axes
  )
