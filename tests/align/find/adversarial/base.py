"""Functions made to mislead: what a case is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from tests.align.find.zoo import base


class Case(NamedTuple):
  """A small function and what is known of its group.

  Attributes:
    model: the function; ``order`` bounds the group from above, as no larger
      one is sound.
    least: the order that must be found; smaller than ``order`` where a rule
      may be cautious, or the group is no product of permutations of axes.
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
  """Uses 6 hidden units ``tanh(x a)``, then reads the result by ``b``."""

  def apply(p: Any, x: Any) -> Any:
    h = use(p, jnp.tanh(x @ p['a']))
    return h @ p['b'] if 'b' in p else h

  shapes = {'a': (3, 6), 'b': (6, 2)} | shapes
  shapes = {name: shape for name, shape in shapes.items() if shape}
  return case(apply, shapes, order, least=least, narrow=narrow)
