"""The examples of a data set: their number, and their order in batches."""

import jax
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
  tree.check_whole(caller, batch_size=batch_size)
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


def batch_indices(
  key: types.PRNGKey,
  first: types.Array,
  steps: int,
  count: int,
  batch_size: int,
) -> types.Array:
  """Returns the examples of each step, ``[steps, batch_size]``.

  Step s is batch ``s % per_epoch`` of epoch ``s // per_epoch``, whose order is
  a permutation drawn from (key, epoch).
  """
  # The steps can start and end within an epoch: draw one epoch more than they
  # fill, then cut out the steps.
  per_epoch = count // batch_size
  first_epoch, offset = jnp.divmod(first, per_epoch)
  epochs = first_epoch + jnp.arange(
    (steps + per_epoch - 1) // per_epoch + 1, dtype=first.dtype
  )
  orders = jax.vmap(
    lambda epoch: jax.random.permutation(
      jax.random.fold_in(key, epoch), jnp.arange(count, dtype=jnp.int32)
    )
  )(epochs)
  batches = orders[:, : per_epoch * batch_size].reshape(-1, batch_size)
  return jax.lax.dynamic_slice_in_dim(batches, offset, steps)
