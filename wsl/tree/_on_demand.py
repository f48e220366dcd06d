"""Leaves on demand: lazy expressions of arrays.

A leaf of a tree is an array or an expression. ``Stored`` is an array to be
fetched by a reader (from disk, say); ``Computed`` is a kernel applied to other
leaves; ``Statistic`` is a small array computed from whole trees.
``apply_kernel`` computes at once if every operand is an array, and builds a
``Computed`` otherwise.

``read`` compiles the whole expression as ONE jitted program per structure and
leaf shape. A chain of kernels is therefore fused by XLA without intermediate
arrays, and 300 leaves of one shape compile once.

Numbers and arrays given as hyperparameters are traced; strings, booleans, None
and values wrapped in ``Static`` are static arguments of the program.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from wsl import types
from wsl.tree import _nodes, _program


def on_demand(tree: types.Tree) -> bool:
  """Returns True if any leaf of the tree is on demand.

  Example:
    >>> import jax.numpy as jnp
    >>> on_demand({'w': jnp.ones(2)})
    False
  """
  return any(isinstance(leaf, _nodes.KINDS) for leaf in jax.tree.leaves(tree))


def is_traced(tree: types.Tree) -> bool:
  """Returns True if any leaf is traced, or on demand and computed from one.

  Example:
    >>> import jax.numpy as jnp
    >>> found = []
    >>> _ = jax.jit(lambda x: found.append(is_traced(defer(x))))(jnp.ones(2))
    >>> found, is_traced(jnp.ones(2))
    ([True], False)
  """
  return any(True for _ in tracers(tree))


def tracers(tree: types.Tree) -> Iterator[Any]:
  """Yields the traced arrays among the leaves and what they depend on."""
  for leaf in jax.tree.leaves(tree):
    if isinstance(leaf, _nodes.Computed):
      yield from tracers(leaf.linear[1])
      continue
    array = leaf.array if isinstance(leaf, _nodes.Stored) else leaf
    if isinstance(array, jax.core.Tracer):
      yield array


def apply_kernel(
  kernel: Callable[..., Any], *operands: Any, **hyper: Any
) -> Any:
  """Applies a kernel to leaves: now, or on demand if any of them is.

  Args:
    kernel: a module-level function of arrays; it is part of the compilation
      key, so a new closure is a new compilation.
    *operands: leaves (or small pytrees of arrays).
    **hyper: hyperparameters. Numbers and arrays are traced; strings, booleans,
      None and ``Static`` values are static arguments.

  Returns:
    An array, or a ``Computed`` leaf if any argument is on demand.

  Example:
    >>> import jax.numpy as jnp
    >>> apply_kernel(jnp.add, jnp.ones(2), jnp.ones(2)).tolist()
    [2.0, 2.0]
    >>> type(apply_kernel(jnp.add, defer(jnp.ones(2)), jnp.ones(2))).__name__
    'Computed'
  """
  node = _nodes.Computed(kernel, operands, hyper)
  return node if is_deferred(node) else read(node)


def is_deferred(node: _nodes.Computed) -> bool:
  """Returns True if any argument of a kernel is on demand."""
  given = (*node.operands, *node.hyper.values())
  return any(isinstance(x, _nodes.KINDS) for x in given) or on_demand(given)


def read(leaf: Any) -> Any:
  """Returns the leaf as an array; fetches or computes it if it is on demand."""
  if isinstance(leaf, _nodes.Stored):
    return leaf.fetch()
  if isinstance(leaf, _nodes.Computed):
    program, inputs, _ = leaf.linear
    return _program.run(program, [read(x) for x in inputs])
  return leaf.value if isinstance(leaf, _nodes.Statistic) else leaf


def statistic(
  compute: Callable[[], Any],
  over: types.Tree,
  *,
  shape: tuple[int, ...],
  dtype: Any,
  passes: int = 1,
) -> Any:
  """Computes a statistic of a tree: now, or on demand if any of its leaves is.

  Args:
    compute: returns a small array.
    over: the tree whose leaves it reads.
    shape: the shape of the array.
    dtype: its dtype.
    passes: how often it reads each leaf, about: ``checkpoint.plan`` adds it up.

  Returns:
    The array; or a leaf on demand, which is computed once, when it is first
    read, and is the same for all expressions that use it.

  Example:
    >>> import jax.numpy as jnp
    >>> x = defer({'w': jnp.ones(2)})
    >>> greatest = statistic(lambda: jnp.max(read(x['w'])), x, shape=(),
    ...                      dtype='float32')
    >>> on_demand(greatest), float(read(greatest))
    (True, 1.0)
  """
  if not on_demand(over):
    return compute()
  leaves = tuple(jax.tree.leaves(over))
  return _nodes.Statistic(
    compute, leaves, passes, tuple(shape), np.dtype(dtype)
  )


def defer(tree: types.Tree) -> types.Tree:
  """Turns arrays into leaves on demand, so that a chain becomes one program.

  A method of several steps defers its operands and reads its result, so that an
  eager call allocates no intermediate stack. In a trace XLA decides what is
  stored.

  Args:
    tree: any pytree; leaves on demand stay as they are.

  Returns:
    The tree with every leaf on demand.

  Example:
    >>> import jax.numpy as jnp
    >>> on_demand(defer({'w': jnp.ones(2)}))
    True
  """

  def stored(x: Any) -> _nodes.OnDemand:
    if isinstance(x, _nodes.KINDS):
      return x
    return _nodes.Stored(lambda: x, x.shape, x.dtype, array=x)

  return jax.tree.map(stored, tree)
