"""Task vectors in factors as the low-rank leaves of a bank."""

from typing import Any

import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.scale._bank import bank_rows


def low_rank(x: Any) -> Any:
  r"""Returns factors as ``LowRank``, with the scale in the map to the outputs.

  .. math:: L R = s B \cdot A \text{ for leaves } [out, in], \qquad
    L R = A^\top \cdot s B^\top \text{ for leaves } [in, out]

  Args:
    x: a leaf of a task vector, or of a stack.

  Returns:
    A ``LowRank``. Leaves that are not in factors, and factors of several
    matrices or of outputs between inputs, stay as they are.
  """
  if not deltas.is_factors(x):
    return x
  view = x.view.fit(x.shape)
  order = list(range(len(x.shape)))
  inputs_first = [*view.rows, *view.columns] == order
  outputs_first = [*view.columns, *view.rows] == order
  if view.groups > 1 or not (inputs_first or outputs_first):
    return x
  sizes = lambda axes: tree.Static(tuple(x.shape[i] for i in axes))
  a = tree.apply_kernel(
    _of_inputs, x.a, shape=sizes(view.rows), last=inputs_first
  )
  b = tree.apply_kernel(
    _of_outputs,
    x.b,
    scale=x.scale,
    shape=sizes(view.columns),
    last=outputs_first,
  )
  pair = (a, b) if inputs_first else (b, a)
  return bank_rows.LowRank(*pair)


def _of_inputs(
  a: types.Array, *, shape: tuple[int, ...], last: bool
) -> types.Array:
  """Splits the inputs of A ``[..., r, in]``; the rank comes last or first."""
  lead, rank = a.shape[:-2], a.shape[-2]
  if last:
    return jnp.matrix_transpose(a).reshape(*lead, *shape, rank)
  return a.reshape(*lead, rank, *shape)


def _of_outputs(
  b: types.Array, *, scale: types.Scalar, shape: tuple[int, ...], last: bool
) -> types.Array:
  """Splits the outputs of s B ``[..., out, r]``, in float32 or wider."""
  wide = tree.wide(b)
  scale = jnp.asarray(scale).astype(wide.dtype)
  wide = wide * scale.reshape(scale.shape + (1,) * (wide.ndim - scale.ndim))
  return _of_inputs(jnp.matrix_transpose(wide), shape=shape, last=last)
