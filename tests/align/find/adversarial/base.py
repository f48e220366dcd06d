"""Defines a case: a function and bounds of its group."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from tests.align.find.zoo import base


class Case(NamedTuple):
  """A small function and bounds of the order of its group.

  Attributes:
    model: the function; ``order`` is the upper bound: no larger group is sound.
    least: the lower bound, the order that must be found. It is smaller than
      ``order`` where a rule may be conservative, or where the group is not a
      product of permutations of axes.
  """

  model: base.Model
  least: int


def case(
  apply: Callable[..., Any],
  shapes: Any,
  order: int,
  *,
  least: int | None = None,
  inputs: Any = None,
  narrow: bool = False,
) -> Case:
  inputs = (base.normal(4, 3),) if inputs is None else inputs
  model = base.Model(apply, base.draw(shapes), inputs, order, narrow=narrow)
  return Case(model, order if least is None else least)


def hidden(
  use: Callable[..., Any],
  order: int,
  *,
  least: int | None = None,
  narrow: bool = False,
  **shapes: tuple[int, ...],
) -> Case:
  """Returns the case of ``use(p, tanh(x a)) b`` with 6 hidden units."""

  def apply(p: Any, x: Any) -> Any:
    h = use(p, jnp.tanh(x @ p['a']))
    return h @ p['b'] if 'b' in p else h

  shapes = {'a': (3, 6), 'b': (6, 2)} | shapes
  shapes = {name: shape for name, shape in shapes.items() if shape}
  return case(apply, shapes, order, least=least, narrow=narrow)
