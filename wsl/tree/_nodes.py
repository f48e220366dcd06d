"""Nodes of lazy expressions, and the program that an expression is.

``Stored`` is an array to be fetched, ``Computed`` a kernel applied to nodes and
arrays, ``Statistic`` a small array that is computed from whole leaves, once.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from wsl.tree import _program
from wsl.tree._reads import inputs as inputs_lib
from wsl.tree._reads import interpreter


class Static(NamedTuple):
  """A hashable hyperparameter that is a static argument of the program."""

  value: Any


# Not frozen, which takes five times as long to create 70,000 of them.
@dataclasses.dataclass(eq=False, slots=True)
class Stored:
  """A leaf that is fetched when it is read; it is not changed.

  Attributes:
    fetch: returns the leaf as a numpy array.
    shape: the shape of the array.
    dtype: the dtype of the array.
    read_into: fills a contiguous array ``[n]`` of ``dtype`` with the n entries
      from a flat index on, ``read_into(start, out)``, so that a large leaf is
      read in chunks; ``None`` if the leaf can only be fetched as a whole. It
      may be called by another thread.
    array: the array, if it is in memory.
  """

  fetch: Callable[[], np.ndarray]
  shape: tuple[int, ...]
  dtype: np.dtype
  read_into: Callable[[int, np.ndarray], None] | None = None
  array: Any = None

  ndim = property(lambda self: len(self.shape))
  size = property(lambda self: math.prod(self.shape))


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
  def linear(self) -> tuple[interpreter.Program, list[Any], tuple[Any, ...]]:
    """The program, its inputs, and what is known of them before a read."""
    program, inputs = _linearise(self)
    return program, inputs, tuple(map(_kind, inputs))

  @functools.cached_property
  def shape_dtype(self) -> Any:
    """The shape and the dtype of the result, by those of the operands."""
    program, inputs = _linearise(self, nested=False)
    kinds = tuple(map(_kind, inputs))
    if None in kinds:  # a pytree of arrays
      return _program.shape_of(program, [_abstract(x) for x in inputs])
    return inputs_lib.shape_of(
      program, kinds, jax.config.read('jax_enable_x64')
    )

  shape = property(lambda self: self.shape_dtype.shape)
  dtype = property(lambda self: self.shape_dtype.dtype)
  ndim = property(lambda self: len(self.shape))
  size = property(lambda self: math.prod(self.shape))


@dataclasses.dataclass(frozen=True, eq=False)
class Statistic:
  """A small array that is computed from leaves on demand, once.

  Attributes:
    compute: returns the array.
    over: the leaves that it reads.
    passes: how often it reads each of them, about.
    shape: the shape of the array.
    dtype: its dtype.
  """

  compute: Callable[[], Any] = dataclasses.field(repr=False)
  over: tuple[Any, ...] = dataclasses.field(repr=False)
  passes: int
  shape: tuple[int, ...]
  dtype: np.dtype

  ndim = property(lambda self: len(self.shape))
  size = property(lambda self: math.prod(self.shape))

  @functools.cached_property
  def value(self) -> Any:
    """The array, computed on first access."""
    value = self.compute()
    dtype = self.dtype
    if isinstance(value, jax.Array):
      dtype = jax.dtypes.canonicalize_dtype(dtype)
    return value.astype(dtype)


OnDemand: TypeAlias = Stored | Computed | Statistic
KINDS = (Stored, Computed, Statistic)


def _kind(x: Any) -> inputs_lib.Kind | None:
  """Describes an input; None if it is a pytree."""
  if not hasattr(x, 'dtype'):
    number = isinstance(x, (int, float, complex))
    return inputs_lib.Kind((), type(x)) if number else None
  stored = isinstance(x, Stored)
  array = not stored and isinstance(x, (np.ndarray, jax.Array))
  known = x.shape_dtype if isinstance(x, Computed) else x
  weak = not stored and bool(getattr(known, 'weak_type', False))
  return inputs_lib.Kind(tuple(x.shape), x.dtype, weak, stored, array)


def _linearise(
  root: Computed, *, nested: bool = True
) -> tuple[interpreter.Program, list[Any]]:
  """Flattens an expression into (kernel, operands, hyper) instructions.

  The program is hashable and contains no array, so it is the static argument of
  one jitted interpreter. An operand is an index: ``i >= 0`` is the i-th input,
  ``~j`` the result of the j-th instruction. A leaf that occurs twice is one
  input, which is read once. Each number is an input of its own: Python may
  represent equal numbers by one object, and the program must not depend on
  their values.

  Args:
    root: the expression.
    nested: whether expressions among its operands are instructions too; else
      they are inputs.
  """
  inputs: list[Any] = []
  program: list[Any] = []
  seen: dict[int, int] = {}

  def slot(node: Any) -> int:
    if not isinstance(node, KINDS) and _is_number(node):
      inputs.append(node)
      return len(inputs) - 1
    if id(node) not in seen:
      if isinstance(node, Computed) and (nested or node is root):
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


def _is_number(x: Any) -> bool:
  """Returns True for a number of Python or numpy, and arrays of rank 0."""
  in_memory = isinstance(x, (np.generic, np.ndarray, jax.Array))
  return isinstance(x, (int, float, complex)) or (in_memory and not x.ndim)


def _abstract(x: Any) -> Any:
  """Returns the shape and dtype of a leaf to be read, or the array itself."""
  if isinstance(x, (Stored, Statistic)):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
  return x.shape_dtype if isinstance(x, Computed) else x


def check_no_products(function: str, tree: Any) -> None:
  """Checks that no leaf is given by the factors of a product.

  The leaves of such a node are its factors, whose entries are not those of the
  leaf that it stands for.

  Args:
    function: the public function to name in the message.
    tree: any pytree; nodes that are products have an attribute ``is_product``.

  Raises:
    ValueError: naming the type of the node.
  """
  is_product = lambda x: getattr(x, 'is_product', False)
  nodes = jax.tree.leaves(tree, is_leaf=is_product)
  found = next(filter(is_product, nodes), None)
  if found is not None:
    raise ValueError(
      f'{function}: a leaf is {type(found).__name__}, whose entries are not '
      'those of the product: give deltas.dense(tree)'
    )
