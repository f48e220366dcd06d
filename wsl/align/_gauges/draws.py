"""Random elements of a gauge group, well conditioned."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from wsl.align import _symmetry
from wsl.align._gauges import complex_tables, elements, procrustes


def tables(
  symmetry: _symmetry.Symmetry,
  normal: Callable[[str, tuple[int, ...]], Any],
  xp: Any = jnp,
) -> elements.Gauge:
  """Draws the tables of all actions, well conditioned.

  Args:
    symmetry: the symmetry.
    normal: draws normal numbers, by a name and a shape.
    xp: ``numpy`` on the host, else ``jax.numpy``.
  """
  found: elements.Gauge = {}
  last: Any = None
  for action in symmetry.actions:
    shape, name = symmetry.action_shape(action.name), action.name
    noise = normal(name, shape)
    if action.kind == 'sign':
      found[name] = xp.where(noise < 0, -1, 1).astype(noise.dtype)
    elif action.kind == 'scale':
      found[name] = xp.exp(noise / 2)
    elif action.kind == 'rotation' and action.ones:
      inner = (*shape[:-2], shape[-1] - 1, shape[-1] - 1)
      small = _rotation(elements.in_turn(normal(name, inner), last), xp)
      last = found[name] = _fixing_ones(small, xp)
    elif action.kind == 'rotation':
      last = found[name] = _rotation(elements.in_turn(noise, last), xp)
    elif action.kind == 'phase':
      size = None if action.unit else normal(f'{name} scale', shape[:-1])
      found[name] = complex_tables.from_normal(noise, size, xp)
    else:
      left = _rotation(elements.in_turn(noise, last), xp)
      last = right = _rotation(
        elements.in_turn(normal(f'{name} right', shape), left), xp
      )
      scale = xp.exp(normal(f'{name} scale', shape[:-1]) / 2)
      found[name] = elements.matmul(left * scale[..., None, :], right)
  return found


def _rotation(noise: Any, xp: Any) -> Any:
  """Returns a uniformly drawn orthogonal matrix from normal numbers."""
  q, r = xp.linalg.qr(noise)
  # Without the signs of the diagonal the draw would not be uniform.
  return q * xp.sign(xp.diagonal(r, 0, -2, -1))[..., None, :]


def _fixing_ones(inner: Any, xp: Any) -> Any:
  """Returns a rotation of n units that fixes ones, from one of n - 1."""
  n = inner.shape[-1] + 1
  basis = procrustes.complement(n).astype(inner.dtype)
  basis = xp.broadcast_to(basis, (*inner.shape[:-2], n, n - 1))
  whole = elements.matmul(
    elements.matmul(basis, inner), xp.matrix_transpose(basis)
  )
  return whole + 1 / n
