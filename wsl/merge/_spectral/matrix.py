"""Merges of matrix leaves, those of one size by one program."""

from collections.abc import Callable
import math
from typing import Any, TypeAlias

import jax

from wsl import tree, types
from wsl.merge import _linear, _stack
from wsl.merge._spectral import programs, spread

# Names of leaves, those of one shape and view together.
_Kinds: TypeAlias = list[list[str]]


def on_matrices(
  function: str,
  kernel: Callable[..., types.Array],
  deltas: types.Deltas,
  matrices: tree.Matrices | None,
  otherwise: str,
  *,
  wide: str = 'keep',
  vectors: Callable[..., types.Array] | None = _linear.mean_leaf,
  **hyper: Any,
) -> types.Tree:
  """Maps matrices by a kernel, and vectors by another.

  Args:
    function: the public function, as the user called it.
    kernel: a module-level function of stacks ``[T, B, m, n]`` in float32 or
      wider, to ``[B, m, n]`` or ``[T, B, m, n]``.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    matrices: which leaves are matrices and in which view, as in ``tree.views``.
    otherwise: leaves of more than two axes without a rule, as in
      ``tree.views``.
    wide: matrices of more columns than rows are kept for ``'keep'``. They are
      transposed for ``'transpose'``, if the kernel of a transpose is the
      transpose of the kernel: wide and tall matrices are decomposed together.
      They are transposed for ``'tell'`` as well, and the kernel is told so by
      ``transposed``: it shares decompositions of one size.
    vectors: a kernel for the other leaves; if None they are kept.
    **hyper: hyperparameters of the kernel.

  Returns:
    The merged task vector, or the task vectors.

  Raises:
    ValueError: as ``tree.views``, or if a matrix is complex.
  """
  views = _stack.views(function, deltas, matrices, otherwise)
  results: dict[str, Any] = {}
  alike: dict[Any, dict[Any, dict[str, Any]]] = {}

  def sort(name: str, x: types.Array, view: tree.Matrix | None) -> None:
    if view is None or not view.is_matrix or not x.size:
      results[name] = tree.apply_kernel(vectors, x) if vectors else x
      return
    tree.check_real(function, {name: x}, 'only real matrices are decomposed')
    # Leaves on demand are read one by one, each when it is needed.
    place = name if tree.on_demand(x) else _place(x)
    count, m, n = view.sizes(x.shape[1:])
    sides = (max(m, n), min(m, n)) if wide == 'transpose' else (m, n)
    kinds = alike.setdefault((count, sides, x.dtype, place), {})
    kinds.setdefault((x.shape, view), {})[name] = x

  tree.map_named(sort, deltas, views)
  found_views = tree.named(views, is_leaf=lambda x: x is None)
  hyper |= {'method': tree.Static(kernel), 'wide': tree.Static(wide)}
  last, blocks = None, _blocks(alike)
  for kinds, block in zip(alike.values(), blocks):
    leaves = {name: x for some in kinds.values() for name, x in some.items()}
    if last is not None and tree.is_traced([last, leaves]):
      name, x = next(iter(leaves.items()))
      leaves[name] = tree.apply_kernel(tree.after, x, last)
    hyper['block'] = tree.Static(block)
    names = [list(some) for some in kinds.values()]
    found = _map_alike(leaves, names, found_views, **hyper)
    results, last = results | found, next(iter(found.values()))
  return tree.map_named(lambda name, _: results[name], deltas)


def _place(x: types.Array) -> Any:
  """Returns where an array is; arrays of other devices have no one program."""
  is_array = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
  return x.sharding if is_array else None


def _blocks(alike: dict[Any, dict[Any, dict[str, Any]]]) -> list[int | None]:
  """Returns the size of blocks that groups of leaves share in one program."""
  stacks = []
  for (count, sides, *_), kinds in alike.items():
    leaves = [x for some in kinds.values() for x in some.values()]
    if not all(isinstance(x, jax.core.Tracer) for x in leaves):
      return [None] * len(alike)
    stacks.append((len(leaves[0]), count * len(leaves), *sides))
  return programs.share_block(stacks)


def _map_alike(
  leaves: dict[str, Any], kinds: _Kinds, views: dict[str, Any], **hyper: Any
) -> dict[str, Any]:
  """Maps leaves of one size by one compiled program.

  In a trace the program has all of them, and loops over blocks. Called eagerly,
  it takes a block of leaves, so that their stack is never in memory at once.
  """
  first = next(iter(leaves.values()))
  found: dict[str, Any] = {}
  hyper['spec'] = tree.Static(spread.spec_of(first))
  if tree.on_demand(leaves):
    ((name, x),) = leaves.items()
    view = tree.Static((views[name],))
    return {name: tree.apply_kernel(programs.in_view, x, views=view, **hyper)}
  in_trace = any(isinstance(x, jax.core.Tracer) for x in leaves.values())
  most = len(leaves) if in_trace else programs.leaves_at_once(first)
  for names in _calls(kinds, most):
    arrays = [leaves[name] for name in names]
    of_call = tree.Static(tuple(views[name] for name in names))
    results = tree.apply_kernel(
      programs.in_views, arrays, views=of_call, **hyper
    )
    found |= dict(zip(names, results))
  return found


def _calls(kinds: _Kinds, most: int) -> list[list[str]]:
  """Returns the leaves of each call of a program that is compiled once.

  Each call takes equally many leaves of every kind; the last leaf of a kind is
  repeated if they do not divide. Where that would be a tenth more work, each
  kind has calls of its own.
  """
  total = sum(map(len, kinds))
  calls = math.ceil(total / most)
  each = [math.ceil(len(names) / calls) for names in kinds]
  if len(kinds) > 1 and 10 * calls * sum(each) > 11 * total:
    return [call for names in kinds for call in _calls([names], most)]
  return [
    [
      names[min(i, len(names) - 1)]
      for names, size in zip(kinds, each)
      for i in range(size * call, size * (call + 1))
    ]
    for call in range(calls)
  ]
