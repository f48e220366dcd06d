"""Task vectors leaf by leaf: differences, factors, storage dtypes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.scale._bank import bank_rows, factors


def of_leaf(
  leaf: str, base: Any, found: list[tuple[str, Any]], dtype: Any
) -> Any:
  """Returns one leaf of T vectors as a bank stores it; None if none has it."""
  rows = [None if x is base else _factors(x) for _, x in found]
  is_product = lambda x: (
    isinstance(x, bank_rows.LowRank) or deltas_lib.is_factors(x)
  )
  present = [x for x in rows if x is not None]
  if not present:
    return None
  for (name, _), x in zip(found, rows):
    if x is not None:
      _check_row(leaf, base, name, x)
  if tree.on_demand((base, rows)):
    return tuple(_row(leaf, base, x, dtype) for x in rows)
  low = [isinstance(x, bank_rows.LowRank) for x in present]
  if all(low) and len(present) == len(rows):
    return _pad_and_stack(present, dtype)
  if any(map(is_product, present)) or len(present) < len(rows):
    return tuple(_row(leaf, base, x, dtype) for x in rows)
  stack = deltas_lib.stack({leaf: base}, [{leaf: x} for x in rows])[leaf]
  return _narrow(stack, dtype)


def of_stack(leaf: str, base: Any, stack: Any, count: int, dtype: Any) -> Any:
  """Returns one leaf of a stack of T vectors as a bank stores it.

  Raises:
    ValueError: if it does not have the shape of T leaves of the base.
  """
  wanted, found = (count, *base.shape), tuple(stack.shape)
  if deltas_lib.is_factors(stack):
    found = (stack.a.shape[0], *found)
  if found != wanted:
    raise ValueError(
      f"as_bank: leaf '{leaf}' has shape {found}, expected {wanted}: T vectors "
      'of the shape of the base'
    )
  stack = deltas_lib.dense(factors.low_rank(stack))
  if dtype is None:
    return stack
  return tree.map(tree.cast_leaf, stack, dtype=tree.Static(np.dtype(dtype)))


def _factors(x: Any) -> Any:
  """Reads low-rank factors that are on demand, since they are small."""
  x = factors.low_rank(x)
  return jax.tree.map(tree.read, x) if isinstance(x, bank_rows.LowRank) else x


def _row(leaf: str, base: Any, x: Any, dtype: Any) -> Any:
  """Returns one vector's leaf, on demand if either operand is."""
  if x is None:
    return None
  if isinstance(x, bank_rows.LowRank):
    return jax.tree.map(lambda y: _narrow(y, dtype), x)
  if deltas_lib.is_factors(x):
    return _narrow(deltas_lib.dense(x), dtype)
  kernel_dtype = tree.Static(_stored(np.dtype(base.dtype), dtype))
  return tree.apply_kernel(_difference, base, x, dtype=kernel_dtype)


def _difference(
  base: types.Array, model: types.Array, *, dtype: np.dtype
) -> types.Array:
  """Subtracts the base in float32 or wider."""
  return (tree.wide(model) - tree.wide(base)).astype(dtype)


def _stored(source: np.dtype, dtype: Any) -> np.dtype:
  """Returns the storage dtype, at most as wide as the difference."""
  wide = tree.wide_dtype(source)
  dtype = wide if dtype is None else np.dtype(dtype)
  if not jnp.issubdtype(dtype, jnp.inexact):
    raise ValueError(
      f'bank(dtype={dtype}): task vectors are stored in a float dtype, such as '
      'bfloat16'
    )
  return dtype if dtype.itemsize <= wide.itemsize else wide


def _narrow(x: types.Array, dtype: Any) -> types.Array:
  """Casts to the storage dtype."""
  return tree.apply_kernel(
    tree.cast_leaf, x, dtype=tree.Static(_stored(np.dtype(x.dtype), dtype))
  )


def _check_row(leaf: str, base: Any, name: str, x: Any) -> None:
  """Checks that a leaf, or its factors, have the base's shape."""
  if isinstance(x, bank_rows.LowRank):
    (*lead, r), (s, *rest) = x.left.shape, x.right.shape
    if r != s or (*lead, *rest) != tuple(base.shape):
      raise ValueError(
        f"bank: model '{name}': leaf '{leaf}' has factors "
        f'{tuple(x.left.shape)} and {tuple(x.right.shape)}, their product must '
        f"have the base's shape {tuple(base.shape)}"
      )
    return
  if deltas_lib.is_factors(x):
    if x.shape != tuple(base.shape) or x.stacked:
      raise ValueError(
        f"bank: model '{name}': leaf '{leaf}' has factors of shape {x.shape}, "
        f'the base {tuple(base.shape)}: give one LoRA of this base'
      )
    return
  deltas_lib.check(
    'bank', {'the base': {leaf: base}, f"model '{name}'": {leaf: x}}
  )


def _pad_and_stack(
  rows: list[bank_rows.LowRank], dtype: Any
) -> bank_rows.LowRank:
  """Stacks factors, padded with zeros to the largest rank."""
  rank = max(row.right.shape[0] for row in rows)

  def fill(x: types.Array, axis: int) -> types.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, rank - x.shape[axis])
    return jnp.pad(jnp.asarray(x), widths)

  stacked = bank_rows.LowRank(
    jnp.stack([fill(row.left, -1) for row in rows]),
    jnp.stack([fill(row.right, 0) for row in rows]),
  )
  return jax.tree.map(lambda x: _narrow(x, dtype), stacked)
