"""Examples in batches, for functions that stream over them."""

from experiments._shared import nets_training
from wsl import types


def cut(
  examples: nets_training.Examples, size: int
) -> list[tuple[types.Array, types.Array]]:
  """Splits images and labels into batches; the last may be smaller."""
  x, y = examples
  return [(x[i : i + size], y[i : i + size]) for i in range(0, len(y), size)]


def of_images(
  x: types.Array, size: int, *, whole: bool = False
) -> list[types.Array]:
  """Splits images into batches; drops a smaller last one if ``whole``."""
  end = len(x) - size + 1 if whole else len(x)
  return [x[i : i + size] for i in range(0, end, size)]
