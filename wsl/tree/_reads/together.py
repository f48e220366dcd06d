"""Equal leaves in the memory of accelerators, several by one program.

To start a program takes the host longer than a kernel of a small leaf takes an
accelerator. Leaves that are computed by one program from arrays of the same
shapes are therefore computed a few at a time, by that many copies of it.
"""

from collections.abc import Iterator, Sequence
import functools
import math
from typing import Any

import jax
import numpy as np

from wsl.tree import _nodes, _on_demand, _program
from wsl.tree._reads import devices, interpreter
from wsl.tree._reads import inputs as inputs_lib

# Leaves of one program: the layers of transformers are often multiples of 12.
_AT_ONCE = 12
_BYTES = 2**31  # of the inputs and results of one program
# Primitives that are compiled to loops and library calls. They take long to
# compile, may need memory of their own, and take longer than to start them.
_LONG = frozenset({
  'while', 'scan', 'sort', 'top_k', 'approx_top_k', 'fft', 'dot_general',
  'ragged_dot_general', 'conv_general_dilated', 'pallas_call', 'custom_call',
  'ffi_call', 'pure_callback', 'io_callback', 'debug_callback',
  *(x.name for x in vars(jax.lax.linalg).values() if hasattr(x, 'name')),
})  # fmt: skip


def read(leaves: Sequence[Any]) -> list[Any]:
  """Reads leaves as ``_on_demand.read`` does, in order."""
  found: list[Any] = [None] * len(leaves)
  for batch in _batches(leaves):
    values = _compute([leaves[i] for i in batch], stack=False)
    for i, value in zip(batch, values, strict=True):
      found[i] = value
  return found


def read_to_host(leaves: Sequence[Any]) -> list[Any]:
  """Reads small results to the host, unless they are traced.

  All are queued before the first is waited for.
  """
  batches = list(_batches(leaves))
  results = [_compute([leaves[i] for i in b], stack=True) for b in batches]
  for part in jax.tree.leaves(results):
    if isinstance(part, jax.Array) and not isinstance(part, jax.core.Tracer):
      part.copy_to_host_async()
  found: list[Any] = [None] * len(leaves)
  for batch, values in zip(batches, results, strict=True):
    rows = values if isinstance(values, list) else np.asarray(values)
    for i, row in zip(batch, rows, strict=True):
      found[i] = row if isinstance(row, jax.core.Tracer) else np.asarray(row)
  return found


def _compute(leaves: Sequence[Any], *, stack: bool) -> Any:
  """Reads equal leaves; returns a list, or a stack if there are several."""
  if len(leaves) == 1:
    return [_on_demand.read(leaves[0])]
  program = leaves[0].linear[0]
  inputs = [[_on_demand.read(x) for x in leaf.linear[1]] for leaf in leaves]
  # A statistic may be traced.
  if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(inputs)):
    return [_program.run(program, own) for own in inputs]
  return _program.run_each(program, inputs, stack)


def _batches(leaves: Sequence[Any]) -> Iterator[Sequence[int]]:
  """Yields the indices of the leaves that one program computes."""
  if jax.default_backend() != 'gpu':
    yield from ([i] for i in range(len(leaves)))
    return
  alike: dict[Any, list[int]] = {}
  for i, leaf in enumerate(leaves):
    kind = _kind(leaf)
    alike.setdefault(i if kind is None else kind, []).append(i)
  for members in alike.values():
    most = 1 if len(members) == 1 else _most(leaves[members[0]])
    yield from split(members, most)


def split(members: Sequence[int], most: int) -> list[list[int]]:
  """Splits indices in parts of at most so many, of one size if possible."""
  n = len(members)
  least = -(-n // most)
  even = [p for p in range(least, n // (most // 2 + 1) + 1) if n % p == 0]
  parts = np.array_split(np.asarray(members), (even or [least])[0])
  return [part.tolist() for part in parts]


def _kind(leaf: Any) -> Any:
  """Returns what leaves of one program share; None if one is read alone."""
  places = devices.places(leaf)
  return (*leaf.linear[::2], places) if places else None


def _most(leaf: _nodes.Computed) -> int:
  """Returns how many leaves equal to one are computed by one program."""
  program, inputs, kinds = leaf.linear
  if _is_long(program, kinds, jax.config.read('jax_enable_x64')):
    return 1
  arrays = [x for x in (leaf, *inputs) if hasattr(x, 'dtype')]
  size = sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)
  return max(1, min(_AT_ONCE, _BYTES // max(size, 1)))


@functools.lru_cache(maxsize=1 << 10)
def _is_long(
  program: interpreter.Program, kinds: tuple[inputs_lib.Kind, ...], x64: bool
) -> bool:
  """Returns True if a program holds a loop or a call of a library."""
  del x64  # part of the key
  jaxpr = inputs_lib.of_kinds(_program.jaxpr_of, program, kinds)
  return not _LONG.isdisjoint(_primitives(jaxpr))


def _primitives(jaxpr: Any) -> Iterator[str]:
  """Yields the names of the primitives of a jaxpr and its calls."""
  for eqn in jaxpr.eqns:
    yield eqn.primitive.name
    for value in eqn.params.values():
      for one in value if isinstance(value, (list, tuple)) else [value]:
        inner = getattr(one, 'jaxpr', one)
        if hasattr(inner, 'eqns'):
          yield from _primitives(inner)
