"""The inputs of a function: arrays, and what is handed on as it is."""

from collections.abc import Callable, Sequence
import itertools
from typing import Any

import jax

from wsl import types


def split(
  apply_fn: Callable[..., Any], inputs: Sequence[Any]
) -> tuple[Callable[[types.Params, list[Any]], Any], list[Any]]:
  """Returns a function of the parameters and the arrays among the inputs."""
  leaves, structure = jax.tree.flatten(tuple(inputs))
  is_array = [hasattr(x, 'shape') and hasattr(x, 'dtype') for x in leaves]
  arrays = list(itertools.compress(leaves, is_array))

  def call(params: types.Params, arrays: list[Any]) -> Any:
    given = iter(arrays)
    filled = [next(given) if a else x for x, a in zip(leaves, is_array)]
    return apply_fn(params, *jax.tree.unflatten(structure, filled))

  return call, arrays
