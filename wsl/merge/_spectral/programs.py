"""Programs that map a block of matrix leaves of one size."""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.merge._spectral import spread

# Entries of stacks that are merged at once: enough for a GPU, and a few times
# 512 MB in float32.
BLOCK = 2**27
# On a CPU, smaller stacks remain in caches, and a matrix that needs float64
# makes fewer others take it. Two leaves occupy two cores at least.
_CPU_BLOCK, _CPU_LEAVES = 2**20, 2
# Blocks of fewer matrices are not shared.
_FEW = 4


def in_view(x: types.Array, **hyper: Any) -> types.Array:
  """Maps each matrix of a view of one leaf ``[T, ...]``; see ``in_views``."""
  return in_views([x], **hyper)[0]


def in_views(
  leaves: list[types.Array],
  *,
  method: Callable[..., types.Array],
  views: tuple[tree.Matrix, ...],
  wide: str,
  block: int | None,
  spec: spread.Spec,
  **hyper: Any,
) -> list[types.Array]:
  """Maps each matrix of views of leaves ``[T, ...]``, in a wide dtype.

  Args:
    leaves: leaves of one dtype, whose matrices are of one size.
    method: a function of stacks ``[T, B, m, n]``, to ``[B, m, n]`` or ``[T, B,
      m, n]``.
    views: the views of the leaves.
    wide: ``'keep'`` matrices of more columns than rows, ``'transpose'`` them,
      or ``'tell'`` the method so, as ``transposed``: all or none of the
      matrices are wide.
    block: the matrices that the method takes at once, see ``share_block``.
    spec: how the leaves are sharded.
    **hyper: hyperparameters of the method.

  Returns:
    A leaf ``[...]`` or ``[T, ...]`` for each leaf.
  """
  stacks, turned = [], []
  for x, view in zip(leaves, views):
    stack = view.split(tree.wide(x), models=1)
    turned.append(wide != 'keep' and stack.shape[-2] < stack.shape[-1])
    stacks.append(jnp.matrix_transpose(stack) if turned[-1] else stack)
  if wide == 'tell':
    hyper['transposed'] = turned[0]
  method = functools.partial(method, **hyper)
  each = lambda x: spread.spread(method, x, spec)
  stack = jnp.concatenate(stacks, 1)
  block = None if spread.devices(stack) > 1 else block
  found = jnp.split(_by_blocks(each, stack, block), len(leaves), -3)
  results = []
  for x, part, view, is_turned in zip(leaves, found, views, turned):
    part = jnp.matrix_transpose(part) if is_turned else part
    join = functools.partial(view.join, shape=x.shape[1:])
    joined = (jax.vmap(join) if part.ndim > 3 else join)(part)
    results.append(spread.restore(joined.astype(x.dtype), spec, x.ndim))
  return results


def leaves_at_once(x: types.Array) -> int:
  """Returns how many leaves of the size of ``x`` an eager call stacks."""
  most = max(BLOCK // x.size, 1)
  devices = x.devices() if isinstance(x, jax.Array) else jax.devices()[:1]
  if {device.platform for device in devices} != {'cpu'} or len(devices) > 1:
    return most
  return min(most, max(_CPU_BLOCK // x.size, _CPU_LEAVES))


def share_block(stacks: Sequence[tuple[int, ...]]) -> list[int | None]:
  """Chooses the matrices of a block for stacks ``[T, B, m, n]`` of one program.

  A compiler for a GPU compiles equal kernels once. Most kernels of a
  decomposition have the shape of the smaller Gram matrices, so that square and
  tall matrices share them if their blocks are of equal size.

  Args:
    stacks: the shapes of the stacks.

  Returns:
    For each stack the size of its blocks; None if no other has its smaller
    side, or if a block has so few matrices that it would slow the others down.
  """
  alike: dict[int, list[int]] = {}
  own = [_balanced(shape) for shape in stacks]
  for i, shape in enumerate(stacks):
    if own[i] >= _FEW:
      alike.setdefault(min(shape[2:]), []).append(i)
  blocks: list[int | None] = [None] * len(stacks)
  for some in alike.values():
    most = min(own[i] for i in some)

    def wasted(size: int, some: list[int] = some) -> int:
      repeated = lambda shape: -shape[1] % size * math.prod(shape[2:])
      return sum(repeated(stacks[i]) for i in some)

    size = min(range(most, most // 2, -1), key=wasted)
    for i in some if len(some) > 1 else ():
      blocks[i] = size
  return blocks


def _balanced(shape: tuple[int, ...]) -> int:
  """Returns the size of equal blocks of ``[T, B, m, n]`` that fit in memory."""
  count = shape[1]
  most = max(BLOCK * count // max(math.prod(shape), 1), 1)
  return math.ceil(count / math.ceil(count / most))


def _by_blocks(
  method: Callable[[types.Array], types.Array],
  x: types.Array,
  block: int | None,
) -> types.Array:
  """Maps ``[T, B, m, n]`` to ``[..., B, m, n]`` in a loop over blocks of B."""
  models, count, *shape = x.shape
  size = block or _balanced(x.shape)
  if count <= size:
    return method(x)
  calls = math.ceil(count / size)
  x = jnp.moveaxis(x, 1, 0)
  x = jnp.concatenate([x, x[: calls * size - count]])
  x = x.reshape(calls, size, models, *shape)
  found = jax.lax.map(lambda block: method(jnp.moveaxis(block, 1, 0)), x)
  found = jnp.moveaxis(found, 0, -4)
  found = found.reshape(*found.shape[:-4], calls * size, *shape)
  return found[..., :count, :, :]
