"""Which inputs of a program are read at the positions of a chunk."""

from collections.abc import Iterator, Sequence
import math

from wsl.tree._reads import inputs as inputs_lib

# Larger arrays in memory are read at the positions of a chunk, smaller ones are
# rather thresholds or weights of models: both are tried.
_LARGE = 1 << 12


def leads(
  kinds: Sequence[inputs_lib.Kind], shape: tuple[int, ...]
) -> Iterator[tuple[int | None, ...]]:
  """Yields the choices of inputs to read at the positions of a shape.

  For each input its number of leading axes, or None if it is uniform.
  """
  for large in (_LARGE, 0):
    yield tuple(
      len(k.shape) - len(shape)
      if k.shape[len(k.shape) - len(shape) :] == shape
      and (k.stored or (k.array and k.shape and math.prod(k.shape) > large))
      else None
      for k in kinds
    )
