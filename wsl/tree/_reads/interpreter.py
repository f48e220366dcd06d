"""Programs of kernels, and their interpreter.

A program is hashable and contains no array, so that it is the static argument
of one jitted function. Its instructions are (kernel, operands, static and
traced hyperparameters); an operand ``i >= 0`` is the i-th input, ``~j`` the
result of the j-th instruction.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

Program: TypeAlias = tuple[Any, ...]


def evaluate(program: Program, inputs: Sequence[Any]) -> Any:
  """Executes the instructions in order; returns the last result."""
  kernel, args, hyper = last(program, inputs)
  return kernel(*args, **hyper)


def last(
  program: Program, inputs: Sequence[Any]
) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
  """Executes all but the last instruction; returns its kernel and arguments."""
  results: list[Any] = []
  value = lambda i: inputs[i] if i >= 0 else results[~i]
  for kernel, args, static, traced in program:
    hyper = dict(static) | {name: value(i) for name, i in traced}
    given = [value(i) for i in args]
    if len(results) < len(program) - 1:
      results.append(kernel(*given, **hyper))
  return kernel, given, hyper


run = jax.jit(evaluate, static_argnums=0)
