"""Map, stack and broadcast over trees whose leaves may be on demand."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from wsl import types
from wsl.tree import _names, _on_demand


def map(
  kernel: Callable[..., Any],
  tree: types.Tree,
  *rest: types.Tree,
  **hyper: Any,
) -> types.Tree:
  """Applies a kernel leaf by leaf, under one compiled program per leaf shape.

  It is ``jax.tree.map`` with two additions: hyperparameters are passed on to
  the kernel (numbers and arrays are traced, so a sweep compiles once), and a
  leaf on demand gives a leaf on demand.

  Args:
    kernel: a module-level function ``kernel(leaf, *rest, **hyper)``.
    tree: any pytree; ``None`` stays ``None``.
    *rest: trees of which ``tree``'s structure is a prefix.
    **hyper: hyperparameters; strings, bools, None and ``Static`` values choose
      the program.

  Returns:
    A tree of results.

  Example:
    >>> import jax.numpy as jnp
    >>> scale = lambda x, factor: x * factor
    >>> map(scale, {'a': jnp.ones(2)}, factor=3.0)['a'].tolist()
    [3.0, 3.0]
  """
  return jax.tree.map(
    lambda *leaves: _on_demand.apply_kernel(kernel, *leaves, **hyper),
    tree,
    *rest,
  )


def read(tree: types.Tree) -> types.Tree:
  """Returns the tree with every leaf on demand computed.

  Example:
    >>> import numpy as np
    >>> leaf = Stored(lambda: np.arange(3.0), (3,), np.dtype('float64'))
    >>> read({'a': leaf})['a'].tolist()
    [0.0, 1.0, 2.0]
  """
  return jax.tree.map(_on_demand.read, tree)


def stack(trees: Sequence[types.Tree]) -> types.Tree:
  """Stacks trees of one structure along a new first axis.

  The statistics of T models (Fisher diagonals, Gram matrices) are handed to a
  merge this way.

  Args:
    trees: T trees of one structure, leaves ``[...]``.

  Returns:
    One tree, leaves ``[T, ...]``.

  Raises:
    ValueError: if there are no trees.

  Example:
    >>> import jax.numpy as jnp
    >>> stack([{'a': jnp.zeros(3)}, {'a': jnp.ones(3)}])['a'].shape
    (2, 3)
  """
  if not trees:
    raise ValueError('stack: no trees given, at least one is needed')
  return map(_stack, trees[0], *trees[1:])


def _stack(*leaves: types.Array) -> types.Array:
  return jnp.stack(leaves)


def broadcast_prefix(prefix: types.Tree, tree: types.Tree) -> types.Tree:
  """Spreads the leaves of a prefix tree over the tree it is a prefix of.

  Args:
    prefix: a single value, or a tree whose leaves stand for whole subtrees.
    tree: the full tree.

  Returns:
    A tree of ``tree``'s structure.

  Raises:
    ValueError: if ``prefix`` is not a prefix of ``tree``, naming the place.

  Example:
    >>> broadcast_prefix({'a': 1, 'b': 2}, {'a': [0, 0], 'b': {'c': 0}})
    {'a': [1, 1], 'b': {'c': 2}}
  """
  try:
    return jax.tree.map(
      lambda value, sub: jax.tree.map(lambda _: value, sub), prefix, tree
    )
  except ValueError as error:
    raise ValueError(
      f'broadcast_prefix: the first tree is no prefix of the second: {error}'
    ) from None


def sizes(tree: types.Tree) -> dict[str, int]:
  """Returns the number of entries of each leaf, by name.

  Example:
    >>> import numpy as np
    >>> sizes({'w': np.zeros((2, 3)), 'b': np.zeros(3)})
    {'b': 3, 'w': 6}
  """
  return {name: int(leaf.size) for name, leaf in _names.named(tree).items()}
