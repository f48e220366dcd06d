"""Complex numbers of phases, as real tables ``[..., 2]``.

A phase multiplies each pair of entries, as a complex number, by its own number
z. An array that is contracted with it over the pairs is multiplied by
1 / conj(z), as Re((z q) conj(k / conj(z))) = Re(q conj(k)).
"""

from collections.abc import Sequence
from typing import Any

from wsl.align import _blocks


def product(x: Any, y: Any, xp: Any) -> Any:
  """Multiplies complex numbers."""
  (a, b), (c, d) = (x[..., 0], x[..., 1]), (y[..., 0], y[..., 1])
  return xp.stack([a * c - b * d, a * d + b * c], -1)


def inverse(x: Any, xp: Any) -> Any:
  """Returns 1 / z = conj(z) / abs(z)^2."""
  conjugate = xp.stack([x[..., 0], -x[..., 1]], -1)
  return conjugate / _squared(x, xp)


def acting(x: Any, power: float, unit: bool, xp: Any) -> Any:
  """Returns the numbers by which an occurrence is multiplied.

  Args:
    x: the numbers z.
    power: 1 for z, -1 for 1 / conj(z) = z / abs(z)^2.
    unit: whether z is divided by its modulus.
    xp: ``numpy`` on the host, else ``jax.numpy``.
  """
  if unit:
    return x / xp.sqrt(_squared(x, xp))
  return x if power == 1 else x / _squared(x, xp)


def multiply(
  block: Any, numbers: Any, places: Sequence[int], dim: int, xp: Any
) -> Any:
  """Multiplies the pairs along one axis of a block.

  Args:
    block: an array with an axis ``dim`` of size 2.
    numbers: complex numbers ``[*sizes, 2]``.
    places: the axes of the block that index the numbers, in their order.
    dim: the axis of real and imaginary parts.
    xp: ``numpy`` on the host, else ``jax.numpy``.
  """
  axes = [*places, dim]
  numbers = _blocks.spread(numbers, axes, block.ndim, xp)
  ahead = lambda x: xp.moveaxis(x, dim, -1)
  return xp.moveaxis(product(ahead(block), ahead(numbers), xp), -1, dim)


def from_normal(noise: Any, size: Any, xp: Any) -> Any:
  """Returns numbers of uniform angles and log-normal moduli.

  Args:
    noise: normal numbers ``[..., 2]``.
    size: normal numbers ``[...]``; ``None`` for the modulus 1.
    xp: ``numpy`` on the host, else ``jax.numpy``.
  """
  unit = noise / xp.sqrt(_squared(noise, xp))
  return unit if size is None else unit * xp.exp(size / 2)[..., None]


def _squared(x: Any, xp: Any) -> Any:
  """Returns the squared moduli, ``[..., 1]``."""
  return xp.sum(x * x, axis=-1, keepdims=True)
