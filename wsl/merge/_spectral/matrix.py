"""Merges of matrix leaves, those of one shape by one program."""

from collections.abc import Callable
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _linear, _stack
from wsl.merge._spectral import columns, spread

# Entries of stacks that are merged at once: enough for a GPU, and a few times
# 512 MB in float32.
_BLOCK = 2**27


def on_matrices(
  function: str,
  kernel: Callable[..., types.Array],
  deltas: types.Deltas,
  matrices: tree.Matrices | None,
  otherwise: str,
  *,
  vectors: Callable[..., types.Array] = _linear.mean_leaf,
  **hyper: Any,
) -> types.Delta:
  """Merges matrices by a kernel, and vectors by another, their mean.

  Args:
    function: the public function, as the user called it.
    kernel: a module-level function ``[T, B, m, n] -> [B, m, n]`` of stacks in
      float32 or wider.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    matrices: which leaves are matrices and in which view, as in ``tree.views``.
    otherwise: leaves of more than two axes without a rule, as in
      ``tree.views``.
    vectors: the kernel of other leaves, ``[T, ...] -> [...]``.
    **hyper: hyperparameters of the kernel.

  Returns:
    The merged task vector.

  Raises:
    ValueError: as ``tree.views``, or if a matrix is complex.
  """
  views = _stack.views(function, deltas, matrices, otherwise)
  merged: dict[str, Any] = {}
  alike: dict[Any, dict[str, Any]] = {}

  def sort(name: str, x: types.Array, view: tree.Matrix | None) -> None:
    if view is None or not view.is_matrix or not x.size:
      merged[name] = tree.apply_kernel(vectors, x)
      return
    tree.check_real(function, {name: x}, 'only real matrices are decomposed')
    # Leaves on demand are read one by one, each when it is needed.
    place = name if tree.on_demand(x) else _place(x)
    alike.setdefault((x.shape, x.dtype, view, place), {})[name] = x

  tree.map_named(sort, deltas, views)
  last = None
  for (_, _, view, _), leaves in alike.items():
    spec = spread.spec_of(next(iter(leaves.values())))
    static = {'method': kernel, 'view': view, 'spec': spec}
    static = {key: tree.Static(value) for key, value in static.items()}
    if last is not None and tree.is_traced([last, leaves]):
      name, x = next(iter(leaves.items()))
      leaves = leaves | {name: tree.apply_kernel(columns.after, x, last)}
    found = _merge_alike(leaves, **static, **hyper)
    merged, last = merged | found, next(iter(found.values()))
  return tree.map_named(lambda name, _: merged[name], deltas)


def _place(x: types.Array) -> Any:
  """Returns where an array is; arrays of other devices have no one program."""
  is_array = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
  return x.sharding if is_array else None


def _merge_alike(leaves: dict[str, Any], **hyper: Any) -> dict[str, Any]:
  """Merges leaves of one shape by one compiled program.

  In a trace the program has all of them, and loops over blocks. Called eagerly,
  it takes a block of leaves, so that their stack is never in memory at once.
  """
  names, found = list(leaves), []
  if tree.on_demand(leaves):
    (leaf,) = leaves.values()
    return {names[0]: tree.apply_kernel(_in_view, leaf, **hyper)}
  arrays = list(leaves.values())
  in_trace = any(isinstance(x, jax.core.Tracer) for x in arrays)
  most = len(arrays) if in_trace else max(_BLOCK // arrays[0].size, 1)
  # Blocks of equal size compile once: the last one repeats a leaf.
  calls = math.ceil(len(arrays) / most)
  size = math.ceil(len(arrays) / calls)
  arrays += arrays[-1:] * (calls * size - len(arrays))
  for start in range(0, len(arrays), size):
    found += tree.apply_kernel(_in_views, arrays[start : start + size], **hyper)
  return dict(zip(names, found))


def _in_view(x: types.Array, **hyper: Any) -> types.Array:
  """Merges each matrix of a view of ``[T, ...]``."""
  return _in_views([x], **hyper)[0]


def _in_views(
  leaves: list[types.Array],
  *,
  method: Callable[..., types.Array],
  view: tree.Matrix,
  spec: spread.Spec,
  **hyper: Any,
) -> list[types.Array]:
  """Merges each matrix of a view of leaves ``[T, ...]``, in a wide dtype."""
  shape, dtype = leaves[0].shape[1:], leaves[0].dtype
  stacks = [view.split(tree.wide(x), models=1) for x in leaves]
  method = functools.partial(method, **hyper)
  each = lambda x: spread.spread(method, x, spec)
  merged = _by_blocks(each, jnp.concatenate(stacks, 1))
  parts = jnp.split(merged, len(leaves))
  joined = [view.join(part, shape).astype(dtype) for part in parts]
  return [spread.restore(x, spec) for x in joined]


def _by_blocks(
  method: Callable[[types.Array], types.Array], x: types.Array
) -> types.Array:
  """Merges ``[T, B, m, n]`` to ``[B, m, n]`` in a loop over blocks of B."""
  models, count, *shape = x.shape
  most = max(_BLOCK * count // max(x.size, 1), 1)
  if count <= most:
    return method(x)
  calls = math.ceil(count / most)
  size = math.ceil(count / calls)
  x = jnp.moveaxis(x, 1, 0)
  x = jnp.concatenate([x, x[: calls * size - count]])
  x = x.reshape(calls, size, models, *shape)
  merged = jax.lax.map(lambda block: method(jnp.moveaxis(block, 1, 0)), x)
  return merged.reshape(-1, *shape)[:count]
