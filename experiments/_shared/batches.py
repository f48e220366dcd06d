"""Examples in batches, for what streams over them."""

from experiments._shared import nets_training
from wsl import types


def cut(
  examples: nets_training.Examples, size: int
) -> list[tuple[types.Array, types.Array]]:
  """Cuts examples into batches; the last may be smaller."""
  x, y = examples
  return [(x[i : i + size], y[i : i + size]) for i in range(0, len(y), size)]
