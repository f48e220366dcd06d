"""The number of examples of a data set."""

import jax.numpy as jnp

from wsl import tree, types


def count(data: types.Tree, batch_size: int, *, caller: str) -> int:
  """Returns N, the length of all leaves.

  Args:
    data: examples, every leaf ``[N, ...]``.
    batch_size: examples in a batch.
    caller: the public function to name in the error message.

  Raises:
    ValueError: if ``batch_size`` is below 1, there is no leaf, or naming the
      leaf of another length.
  """
  if batch_size < 1:
    raise ValueError(f'{caller}: batch_size={batch_size}: expected 1 or more')
  leaves = tree.named(data)
  if not leaves:
    raise ValueError(f'{caller}: data has no leaves, expected arrays [N, ...]')
  shapes = {name: jnp.shape(leaf) for name, leaf in leaves.items()}
  first = next(iter(shapes))
  for name, shape in shapes.items():
    if not shape or shape[0] != shapes[first][0]:
      raise ValueError(
        f"{caller}: data leaf '{name}' is {list(shape)} and '{first}' is "
        f'{list(shapes[first])}, expected one leading axis of N examples'
      )
  return shapes[first][0]
