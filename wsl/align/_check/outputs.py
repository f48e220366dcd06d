"""Outputs of a function on the host, and their relative changes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from wsl import jaxprs, types


def compiled(
  apply_fn: Callable[..., Any], inputs: tuple[Any, ...]
) -> Callable[[types.Params], list[np.ndarray]]:
  """Compiles a function from parameters to the outputs as NumPy arrays."""
  call, arrays = jaxprs.bind_static(apply_fn, inputs)
  leaves = jax.jit(lambda params, arrays: jax.tree.leaves(call(params, arrays)))

  def run(params: types.Params) -> list[np.ndarray]:
    with jax.default_matmul_precision('highest'):
      return [np.asarray(x) for x in leaves(params, arrays)]

  return run


def difference(
  found: list[np.ndarray], wanted: list[np.ndarray], *, caller: str
) -> float:
  """Returns the largest change, relative to the largest entry of its array.

  Args:
    found: the outputs.
    wanted: the outputs before the change.
    caller: the public function to name in the error message.

  Raises:
    ValueError: if a wanted output is NaN.
  """
  if any(np.isnan(_numbers(x)).any() for x in wanted):
    raise ValueError(
      f'{caller}: the function returns NaN for random parameters: give inputs '
      '(and parameters to start from) for which it is finite'
    )
  return max((_change(x, y) for x, y in zip(found, wanted)), default=0.0)


def _change(found: np.ndarray, wanted: np.ndarray) -> float:
  """Returns the relative change of one output; equal infinities are equal."""
  found, wanted = (_numbers(x) for x in (found, wanted))
  with np.errstate(invalid='ignore'):
    gap = np.where(found == wanted, 0.0, np.abs(found - wanted))
  size = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
  largest = gap.max(initial=0.0)
  if not largest:
    return 0.0
  return float(largest / size) if size and np.isfinite(largest) else np.inf


def _numbers(x: np.ndarray) -> np.ndarray:
  """Returns booleans, integers and floats in float64."""
  return x if np.iscomplexobj(x) else x.astype(np.float64)
