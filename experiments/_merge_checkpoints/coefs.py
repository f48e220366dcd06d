"""Coefficients of the merged task vector: a number, by layer, by regex."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from wsl import recipes, scale, tree, types


class Factors(NamedTuple):
  """The factors by which a task vector is multiplied, leaf by leaf.

  Attributes:
    numbers: the coefficient, or one by regular expression, for
      ``deltas.apply``.
    line: arguments of ``scale.by_depth``, or None.
    values: the product for each leaf, and the condition that it holds under.
  """

  numbers: float | dict[str, float]
  line: Mapping[str, Any] | None
  values: dict[str, recipes.Value]

  @property
  def identity(self) -> bool:
    """Whether all factors are 1."""
    return all(v.value == 1 for v in self.values.values())

  def bend(self, delta: types.Delta) -> types.Delta:
    """Scales a task vector by the depth of its layers."""
    return delta if self.line is None else scale.by_depth(delta, **self.line)


def check(config: ml_collections.ConfigDict) -> None:
  """Checks the fields of the coefficients without the names of leaves.

  Raises:
    ValueError: naming the field.
  """
  tree.check_scalars('coef', coef=config.coef)
  for pair in config.coef_by_regex:
    if len(pair) != 2 or not isinstance(pair[0], str):
      raise ValueError(f'coef_by_regex: {pair!r}: expected (regex, number)')
    tree.compiled(pair[0])
    tree.check_scalars('coef_by_regex', value=pair[1])
  line = config.coef_by_layer
  if line.depth:
    if tree.compiled(line.depth).groups != 1:
      raise ValueError(
        f"coef_by_layer.depth='{line.depth}': expected one group that captures "
        r"the layer's number, such as r'layers\.(\d+)\.'"
      )
  elif (line.start, line.end) != (1.0, 1.0):
    raise ValueError(
      'coef_by_layer: start and end need depth, a regular expression with one '
      r"group that captures the layer's number, such as r'layers\.(\d+)\.'"
    )


def resolve(config: ml_collections.ConfigDict, names: Sequence[str]) -> Factors:
  r"""Returns the factor of each leaf: ``coef``, times that by regex and layer.

  Args:
    config: with the fields ``coef``, ``coef_by_regex`` and ``coef_by_layer``.
    names: of the float leaves.

  Returns:
    The factors.

  Raises:
    ValueError: if a leaf has no regular expression, one has no leaf, or layers
      are not found.

  Example:
    >>> config = ml_collections.ConfigDict({
    ...   'coef': 0.5, 'coef_by_regex': (('mlp', 2.0), ('.*', 1.0)),
    ...   'coef_by_layer': {'depth': '', 'start': 1.0, 'end': 1.0}})
    >>> found = resolve(config, ['0.mlp.w', '0.attn.w'])
    >>> {name: (v.value, v.rule) for name, v in found.values.items()}
    {'0.mlp.w': (1.0, "regex 'mlp'"), '0.attn.w': (0.5, "regex '.*'")}
  """
  products = dict.fromkeys(names, float(config.coef))
  rules = dict.fromkeys(names, '')
  numbers: float | dict[str, float] = float(config.coef)
  if config.coef_by_regex:
    pairs = [(p, (p, float(v))) for p, v in config.coef_by_regex]
    try:
      chosen = tree.by_regex(dict.fromkeys(names, 0), pairs)
    except ValueError as error:
      raise ValueError(f'coef_by_regex: {error}') from None
    for name, (pattern, value) in chosen.items():
      products[name] *= value
      rules[name] = f"regex '{pattern}'"
    numbers = {p: config.coef * v for _, (p, v) in pairs}
  line = None
  if config.coef_by_layer.depth:
    line = config.coef_by_layer.to_dict()
    ones = {name: np.ones(1) for name in names}
    for name, factor in scale.by_depth(ones, **line).items():
      products[name] *= float(factor[0])
      rules[name] = ', '.join(filter(None, [rules[name], 'by layer']))
  values = {
    name: recipes.Value('coef', None, rules[name], products[name])
    for name in names
  }
  return Factors(numbers, line, values)
