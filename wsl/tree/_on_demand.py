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

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from wsl import types
from wsl.tree import _program, _statistic


class Static(NamedTuple):
  """A hashable hyperparameter that is a static argument of the program."""

  value: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
  """A leaf that is fetched when it is read.

  Attributes:
    fetch: returns the leaf as a numpy array.
    shape: the shape of the array.
    dtype: the dtype of the array.
    read_into: fills a contiguous array ``[n]`` of ``dtype`` with the n entries
      from a flat index on, ``read_into(start, out)``, so that a large leaf is
      read in chunks; ``None`` if the leaf can only be fetched as a whole. It
      may be called by another thread.
  """

  fetch: Callable[[], np.ndarray]
  shape: tuple[int, ...]
  dtype: np.dtype
  read_into: Callable[[int, np.ndarray], None] | None = None

  ndim = property(lambda self: len(self.shape))
  size = property(lambda self: int(np.prod(self.shape, dtype=np.int64)))


@dataclasses.dataclass(frozen=True, eq=False)
class Computed:
  """A kernel applied to leaves, some of them on demand.

  Attributes:
    kernel: a module-level function of arrays.
    operands: its positional arguments.
    hyper: its keyword arguments.
  """

  kernel: Callable[..., Any]
  operands: tuple[Any, ...]
  hyper: dict[str, Any]

  @functools.cached_property
  def shape_dtype(self) -> jax.ShapeDtypeStruct:
    """The shape and the dtype of the result."""
    program, inputs = linearise(self)
    return _program.shape_of(program, [_abstract(x) for x in inputs])

  shape = property(lambda self: self.shape_dtype.shape)
  dtype = property(lambda self: self.shape_dtype.dtype)
  ndim = property(lambda self: len(self.shape))
  size = property(lambda self: int(np.prod(self.shape, dtype=np.int64)))


Statistic: TypeAlias = _statistic.Statistic
OnDemand: TypeAlias = Stored | Computed | Statistic
_KINDS = (Stored, Computed, Statistic)


def on_demand(tree: types.Tree) -> bool:
  """Returns True if any leaf of the tree is on demand.

  Example:
    >>> import jax.numpy as jnp
    >>> on_demand({'w': jnp.ones(2)})
    False
  """
  return any(isinstance(leaf, _KINDS) for leaf in jax.tree.leaves(tree))


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
  node = Computed(kernel, operands, hyper)
  return node if on_demand((operands, hyper)) else read(node)


def read(leaf: Any) -> Any:
  """Returns the leaf as an array; fetches or computes it if it is on demand."""
  if isinstance(leaf, Stored):
    return leaf.fetch()
  if isinstance(leaf, Computed):
    program, inputs = linearise(leaf)
    return _program.run(program, [read(x) for x in inputs])
  return leaf.value if isinstance(leaf, Statistic) else leaf


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
  return Statistic(compute, leaves, passes, tuple(shape), np.dtype(dtype))


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

  def stored(x: Any) -> OnDemand:
    if isinstance(x, _KINDS):
      return x
    return Stored(lambda: x, x.shape, x.dtype)

  return jax.tree.map(stored, tree)


def linearise(root: Computed) -> tuple[_program.Program, list[Any]]:
  """Flattens an expression into (kernel, operands, hyper) instructions.

  The program is hashable and contains no array, so it is the static argument of
  one jitted interpreter. An operand is an index: ``i >= 0`` is the i-th input,
  ``~j`` the result of the j-th instruction. A leaf that occurs twice is one
  input, which is read once.
  """
  inputs: list[Any] = []
  program: list[Any] = []
  seen: dict[int, int] = {}

  def slot(node: Any) -> int:
    if id(node) not in seen:
      if isinstance(node, Computed):
        args = tuple(slot(x) for x in node.operands)
        static, traced = [], []
        for name, value in sorted(node.hyper.items()):
          if isinstance(value, Static):
            static.append((name, value.value))
          elif value is None or isinstance(value, (str, bool)):
            static.append((name, value))
          else:
            traced.append((name, slot(value)))
        program.append((node.kernel, args, tuple(static), tuple(traced)))
        seen[id(node)] = ~(len(program) - 1)
      else:
        inputs.append(node)
        seen[id(node)] = len(inputs) - 1
    return seen[id(node)]

  slot(root)
  return tuple(program), inputs


def _abstract(x: Any) -> Any:
  """Returns the shape and dtype of a leaf to be read, or the array itself."""
  if isinstance(x, (Stored, Statistic)):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
  return x
