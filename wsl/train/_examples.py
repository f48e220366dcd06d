"""The number of examples of a data set."""

import jax.numpy as jnp

from wsl import tree, types


def count(data: types.Tree, batch_size: int) -> int:
  """Returns N, the length of all leaves, or names the leaf that differs."""
  if batch_size < 1:
    raise ValueError(f'batch_size={batch_size}: expected 1 or more')
  leaves = tree.named(data)
  if not leaves:
    raise ValueError('the data has no leaves: pass arrays [N, ...]')
  shapes = {name: jnp.shape(leaf) for name, leaf in leaves.items()}
  first = next(iter(shapes))
  for name, shape in shapes.items():
    if not shape or shape[0] != shapes[first][0]:
      raise ValueError(
        f"data leaf '{name}' is {list(shape)} and '{first}' is "
        f'{list(shapes[first])}: every leaf needs the same leading axis of '
        f'examples'
      )
  return shapes[first][0]
