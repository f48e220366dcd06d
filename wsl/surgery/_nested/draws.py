"""Random sizes of slices."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from wsl import types
from wsl.surgery._nested import size as size_lib


def draw_size(
  sizes: Sequence[size_lib.Size], key: types.PRNGKey, *, mixed: bool = False
) -> size_lib.Size:
  """Draws one of K sizes uniformly, or a mixture of them.

  Args:
    sizes: K sizes of one model.
    key: a random key.
    mixed: whether each group and each sequence of blocks draws a size of its
      own, as in Mix'n'Match.

  Returns:
    The size as int32 arrays ``[]``, for ``mask_units``; also inside ``jit``.

  Raises:
    ValueError: if there is no size, they name different groups, or none.

  Example:
    >>> import jax
    >>> from wsl import align, surgery
    >>> h = align.Factor('w:0', 16)
    >>> symmetry = align.Symmetry((h,), (('w', ((('w:0',),),)),))
    >>> sizes = surgery.granularities(symmetry)
    >>> int(draw_size(sizes, jax.random.key(0)).widths['w:0'])
    8

  Reference:
    Valipour et al., "SortedNet: A Scalable and Generalized Framework for
    Training Modular Deep Neural Networks", 2023, arXiv:2309.00255.
  """
  stacked = size_lib.stack_sizes(sizes, 'draw_size')
  return draw(stacked, key, mixed=mixed)[0]


def draw(
  stacked: size_lib.Size, key: types.PRNGKey, *, mixed: bool
) -> tuple[size_lib.Size, types.Array]:
  """Draws from K sizes, stacked as arrays ``[K]``.

  Returns:
    The size, and the position of the one drawn; of the first group's if sizes
    are mixed.
  """
  numbers, structure = jax.tree.flatten(stacked)
  shape = (len(numbers) if mixed else 1,)
  places = jax.random.randint(key, shape, 0, len(numbers[0]), dtype=jnp.int32)
  index = jnp.broadcast_to(places, (len(numbers),))
  drawn = [jnp.asarray(n)[k] for n, k in zip(numbers, index)]
  return jax.tree.unflatten(structure, drawn), places[0]
