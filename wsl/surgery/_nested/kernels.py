"""Elastic kernels: the centre of a convolution, with a linear map."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def kernel_transforms(
  sides: Sequence[int], *, ndim: int = 2, dtype: Any = np.float32
) -> dict[str, types.Array]:
  r"""Returns the identity transforms of an elastic kernel, to be trained.

  .. math:: M_s = I, \quad s \in \text{sides} \setminus \{\max\}

  Args:
    sides: odd sides of the kernel, such as ``(7, 5, 3)``.
    ndim: the number of spatial axes.
    dtype: the dtype of the matrices.

  Returns:
    A matrix ``[s^ndim, s^ndim]`` by each side but the largest, as text.

  Raises:
    ValueError: if a side is even, below 1 or given twice.

  Example:
    >>> {side: m.shape for side, m in kernel_transforms((7, 5, 3)).items()}
    {'5': (25, 25), '3': (9, 9)}

  Reference:
    Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient
    Deployment", 2019, arXiv:1908.09791.
  """
  for side in sides:
    tree.check_whole('kernel_transforms', side=side)
    if side < 1 or side % 2 == 0:
      raise ValueError(f'kernel_transforms: side {side}, expected an odd one')
  if len({*sides}) != len(sides):
    raise ValueError(f'kernel_transforms: a side of {tuple(sides)} is twice')
  smaller = sorted(sides, reverse=True)[1:]
  return {str(s): jnp.eye(s**ndim, dtype=dtype) for s in smaller}


def elastic_kernel(
  kernel: types.Array,
  transforms: Mapping[str, types.Array],
  *,
  side: int,
  axes: Sequence[int] = (0, 1),
  padded: bool = False,
) -> types.Array:
  r"""Returns a smaller convolution kernel from the centre of a larger one.

  .. math:: k_s = M_s\, \mathrm{centre}_s(k_{s'}), \qquad s' > s

  from the largest side through all sides that have a transform down to
  ``side``. The spatial entries are flattened; all channels of a layer share
  :math:`M_s`. With identity transforms it is a crop.

  Args:
    kernel: a kernel with odd, equal sizes of its spatial axes.
    transforms: matrices by side, from ``kernel_transforms``.
    side: the wanted side: that of the kernel, or one that has a transform.
    axes: the spatial axes, ``(0, 1)`` for Flax ``[h, w, in, out]``, ``(2, 3)``
      for PyTorch.
    padded: whether the result is padded by zeros to the sides of ``kernel``:
      with the padding ``'SAME'`` it computes what the smaller one does. Stack
      such kernels and take one by a traced index, to compile once for all.

  Returns:
    The kernel, in the dtype of ``kernel``; spatial sizes ``side``, or those of
    ``kernel`` if padded.

  Raises:
    ValueError: if a side or the shape of a transform does not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> kernel = jnp.arange(25.0).reshape(5, 5, 1, 1)
    >>> small = elastic_kernel(kernel, kernel_transforms((5, 3)), side=3)
    >>> small[:, :, 0, 0].tolist()
    [[6.0, 7.0, 8.0], [11.0, 12.0, 13.0], [16.0, 17.0, 18.0]]

  Reference:
    Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient
    Deployment", 2019, arXiv:1908.09791.
  """
  largest = _check(kernel, transforms, side, axes)
  steps = sorted((int(s) for s in transforms if int(s) >= side), reverse=True)
  hyper = {
    'steps': tree.Static(tuple(s for s in steps if s < largest)),
    'axes': tree.Static(tuple(axes)),
    'padded': padded,
  }
  return tree.apply_kernel(_transform, kernel, dict(transforms), **hyper)


def _transform(
  kernel: types.Array,
  transforms: Mapping[str, types.Array],
  *,
  steps: tuple[int, ...],
  axes: tuple[int, ...],
  padded: bool,
) -> types.Array:
  """Crops and transforms step by step."""
  x = jnp.moveaxis(tree.wide(kernel), axes, range(len(axes)))
  largest = x.shape[0]
  for side in steps:
    # M acts on the flattened positions, [s^n, s^n] @ [s^n, channels].
    margin = (x.shape[0] - side) // 2
    x = x[(slice(margin, margin + side),) * len(axes)]
    matrix = transforms[str(side)].astype(x.dtype)
    x = tree.matmul(matrix, x.reshape(len(matrix), -1)).reshape(x.shape)
  if padded:
    margin = (largest - x.shape[0]) // 2
    rest = [(0, 0)] * (x.ndim - len(axes))
    x = jnp.pad(x, [(margin, margin)] * len(axes) + rest)
  return jnp.moveaxis(x, range(len(axes)), axes).astype(kernel.dtype)


def _check(
  kernel: types.Array,
  transforms: Mapping[str, types.Array],
  side: int,
  axes: Sequence[int],
) -> int:
  """Checks sides and shapes; returns the side of the kernel."""
  if not tree.is_float(kernel):
    raise ValueError(
      f'elastic_kernel: the kernel is {kernel.dtype}: quantised? dequantise it'
    )
  sides = {kernel.shape[axis] for axis in axes}
  if len(sides) != 1 or min(sides) % 2 == 0:
    raise ValueError(
      f'elastic_kernel: a kernel {tuple(kernel.shape)} with spatial axes '
      f'{tuple(axes)}, expected equal odd sides'
    )
  (largest,) = sides
  if side != largest and str(side) not in transforms:
    known = [largest, *map(int, transforms)]
    raise ValueError(f'elastic_kernel: side={side}, expected one of {known}')
  for name, matrix in transforms.items():
    n = int(name) ** len(axes)
    if matrix.shape != (n, n) or int(name) >= largest or int(name) % 2 == 0:
      raise ValueError(
        f"elastic_kernel: the transform '{name}' has shape {matrix.shape} for "
        f'a kernel of side {largest}, expected an odd smaller side s and '
        f'[s^{len(axes)}, s^{len(axes)}]'
      )
  return largest
