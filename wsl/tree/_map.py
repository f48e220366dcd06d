"""Map, stack and broadcast over trees whose leaves may be on demand.

Also the function that binds arrays as a pytree, for kernels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from wsl import types
from wsl.tree import _names, _nodes, _on_demand, _separate
from wsl.tree._containers import convert
from wsl.tree._reads import together


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
    **hyper: hyperparameters; strings, bools, None and ``Static`` values are
      static arguments of the compiled program.

  Returns:
    A tree of results.

  Example:
    >>> import jax.numpy as jnp
    >>> scale = lambda x, factor: x * factor
    >>> map(scale, {'a': jnp.ones(2)}, factor=3.0)['a'].tolist()
    [3.0, 3.0]
  """
  each = iter(_separate.hyper_for_leaves(hyper, jax.tree.leaves(tree)))
  nodes = jax.tree.map(
    lambda *leaves: _nodes.Computed(kernel, leaves, next(each)), tree, *rest
  )
  found, treedef = jax.tree.flatten(nodes)
  now = [i for i, node in enumerate(found) if not _on_demand.is_deferred(node)]
  for i, value in zip(now, together.read([found[i] for i in now])):
    found[i] = value
  return jax.tree.unflatten(treedef, found)


def read(tree: types.Tree) -> types.Tree:
  """Returns the tree with every leaf on demand computed.

  Args:
    tree: any pytree; arrays are returned as they are.

  Returns:
    A tree of arrays.

  Example:
    >>> import numpy as np
    >>> from wsl import tree
    >>> leaf = tree.Stored(lambda: np.arange(3.0), (3,), np.dtype('float64'))
    >>> read({'a': leaf})['a'].tolist()
    [0.0, 1.0, 2.0]
  """
  leaves, treedef = jax.tree.flatten(tree)
  return jax.tree.unflatten(treedef, together.read(leaves))


def stack(trees: Sequence[types.Tree]) -> types.Tree:
  """Stacks trees of one structure along a new first axis.

  Merges take the statistics of T models (Fisher diagonals, Gram matrices) in
  this form.

  Args:
    trees: T trees of one structure, leaves ``[...]``.

  Returns:
    One tree, leaves ``[T, ...]``, in the containers of the first.

  Raises:
    ValueError: if there are no trees, or one differs in structure or shapes,
      naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> stack([{'a': jnp.zeros(3)}, {'a': jnp.ones(3)}])['a'].shape
    (2, 3)
  """
  if not trees:
    raise ValueError('stack: no trees given, at least one is needed')
  first = trees[0]
  trees = [
    convert.conform(f'stack: tree {t}', other, 'tree 0', first)
    for t, other in enumerate(trees)
  ]
  wanted = _names.named(first)
  for t, other in enumerate(trees[1:], 1):
    for name, leaf in _names.named(other).items():
      shapes = tuple(leaf.shape), tuple(wanted[name].shape)
      if shapes[0] != shapes[1]:
        raise ValueError(
          f"stack: leaf '{name}' of tree {t} has shape {shapes[0]}, of tree 0 "
          f'{shapes[1]}: stack trees of one model'
        )
  return map(_stack, trees[0], *trees[1:])


def _stack(*leaves: types.Array) -> types.Array:
  return jnp.stack(leaves)


def broadcast_prefix(prefix: types.Tree, tree: types.Tree) -> types.Tree:
  """Broadcasts each leaf of a prefix tree to the subtree at its position.

  It is the rule of ``in_axes`` in ``jax.vmap``: one value applies to the whole
  tree, or to a subtree. Nodes are found by name, so that their containers may
  be of other types than the tree's.

  Args:
    prefix: a single value, or a tree whose leaves apply to whole subtrees.
    tree: the full tree.

  Returns:
    A tree of ``tree``'s structure.

  Raises:
    ValueError: if ``prefix`` is not a prefix of ``tree``, naming the leaf.

  Example:
    >>> broadcast_prefix({'a': 1, 'b': 2}, {'a': [0, 0], 'b': {'c': 0}})
    {'a': [1, 1], 'b': {'c': 2}}
  """
  try:
    return jax.tree.map(
      lambda value, sub: jax.tree.map(lambda _: value, sub), prefix, tree
    )
  except ValueError:
    values = _names.named(prefix)
    nodes = nodes_of_leaves(list(values), tree)
    if nodes is None:
      raise ValueError(f'broadcast_prefix: {misfit(prefix, tree)}') from None
    return jax.tree.map(lambda node: values[node], nodes)


def nodes_of_leaves(nodes: list[str], tree: types.Tree) -> types.Tree | None:
  """Returns the node above each leaf, if the nodes are a prefix of the tree."""
  leaves = _names.named(tree)
  above = {
    leaf: [node for node in nodes if f'{leaf}/'.startswith(f'{node}/')]
    for leaf in leaves
  }
  used = {node for found in above.values() for node in found}
  if not all(above.values()) or used != set(nodes):
    return None
  return _names.map_named(lambda name, _: above[name][0], tree)


def misfit(prefix: types.Tree, tree: types.Tree) -> str:
  """Describes the first mismatch between a prefix tree and a tree."""
  places, names = list(_names.named(prefix)), list(_names.named(tree))
  under = lambda name, place: f'{name}/'.startswith(f'{place}/')
  for name in names:
    if not any(under(name, place) for place in places):
      return f"no value stands for leaf '{name}': add one to the prefix"
  place = next(p for p in places if not any(under(name, p) for name in names))
  hint = _names.nearest(place, names)
  return f"the value '{place}' stands for no leaf{hint}: take it out"


def partial(fn: Any) -> jax.tree_util.Partial:
  """Wraps a function as a pytree, unless it is one.

  Arrays bound by a ``jax.tree_util.Partial`` are arguments of a compiled
  program, not constants in it: one program serves all bound arrays of a shape.

  Args:
    fn: a hashable function, or a ``Partial``, which stays as it is.

  Returns:
    A ``Partial``.

  Example:
    >>> import operator
    >>> bound = jax.tree_util.Partial(operator.mul, 3.0)
    >>> partial(bound) is bound, partial(operator.neg)(2)
    (True, -2)
  """
  is_one = isinstance(fn, jax.tree_util.Partial)
  return fn if is_one else jax.tree_util.Partial(fn)


def sizes(tree: types.Tree) -> dict[str, int]:
  """Returns the number of entries of each leaf, by name.

  Args:
    tree: any pytree of arrays, in memory or on demand.

  Returns:
    A dict from names to sizes.

  Example:
    >>> import numpy as np
    >>> sizes({'w': np.zeros((2, 3)), 'b': np.zeros(3)})
    {'b': 3, 'w': 6}
  """
  return {name: int(leaf.size) for name, leaf in _names.named(tree).items()}
