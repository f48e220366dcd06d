"""Transforms of learned parameters to coefficients, and projections.

Coefficients in float64 are transformed in float64, also where x64 is off.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.scale._coefs import coef_tree


def identity(coefs: Any) -> Any:
  """Returns its argument."""
  return coefs


def box(coefs: Any, *, low: float = 0.0, high: float = 1.0) -> Any:
  """Projects every coefficient onto an interval.

  Pass it to ``fit`` as ``project``, which is applied after each step. A clamp
  in the forward pass (AdaMerging's code) has zero gradient outside the
  interval, so a coefficient that leaves it never returns.

  Args:
    coefs: any tree.
    low: the least coefficient.
    high: the greatest.

  Returns:
    The nearest coefficients in the interval.

  Example:
    >>> import jax.numpy as jnp
    >>> box({'w': jnp.asarray([-1.0, 0.5, 3.0])})['w'].tolist()
    [0.0, 0.5, 1.0]
  """
  tree.check_scalars('box', low=low, high=high)
  return tree.map(_clip, coefs, low=low, high=high)


def softmax(coefs: Any) -> Any:
  """Maps each block's logits to coefficients on the simplex over vectors.

  Args:
    coefs: logits, leaves ``[T]`` or ``[T, cells...]``.

  Returns:
    Coefficients, the same tree.

  Raises:
    ValueError: if a block has one number for all vectors.

  Example:
    >>> import jax.numpy as jnp
    >>> softmax({'w': jnp.zeros(4)})['w'].tolist()
    [0.25, 0.25, 0.25, 0.25]
  """
  for name, x in tree.named(coefs).items():
    if not jnp.ndim(x):
      raise ValueError(
        f"softmax: block '{name}' has one number for all vectors: init "
        "by='task' or finer"
      )
  return tree.map(jax.nn.softmax, coefs, axis=tree.Static(0))


def line(ends: dict[str, types.Array], *, like: coef_tree.Coefs) -> Any:
  r"""Makes the coefficients linear in depth: two parameters to learn.

  .. math:: \lambda_{il} = \alpha + (\omega - \alpha) \frac{l}{L - 1}

  Bind ``like`` by ``functools.partial`` to get a transform.

  Args:
    ends: ``'start'``, alpha, and ``'end'``, omega; each ``[]``, or ``[T]`` for
      one line for each vector.
    like: the layout, from ``init(by='layer')``; blocks outside the layers have
      the coefficient ``start``.

  Returns:
    Coefficients like ``like``.

  Raises:
    ValueError: if ``like`` has fewer than two layers, or ``ends`` has other
      names.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import scale
    >>> base = {f'block_{i}/w': jnp.ones(1) for i in range(3)}
    >>> bank = scale.bank(base, [{k: 2 * x for k, x in base.items()}])
    >>> layers = scale.init(bank, by='layer', depth=r'block_(\d+)/')
    >>> ends = {'start': jnp.asarray(0.5), 'end': jnp.asarray(1.0)}
    >>> [x.tolist() for x in line(ends, like=layers).values.values()]
    [[0.5], [0.75], [1.0]]

  Reference:
    Wang et al., "LiNeS: Post-training Layer Scaling Prevents Forgetting and
    Enhances Model Merging", 2024, arXiv:2410.17146.
  """
  if set(ends) != {'start', 'end'}:
    raise ValueError(f"line: expected 'start' and 'end', got {list(ends)}")
  found = {block: re.fullmatch(r'layer_(\d+)', block) for block in like.values}
  numbers = {block: int(match[1]) for block, match in found.items() if match}
  last = max(numbers.values(), default=0)
  if last < 1:
    raise ValueError(
      f'line: the blocks are {list(like.values)[:3]}, expected at least two '
      "layers: init by='layer'"
    )
  values = {
    block: tree.apply_kernel(
      _between,
      ends['start'],
      ends['end'],
      place=numbers.get(block, 0) / last,
      shape=tree.Static(jnp.shape(x)),
    )
    for block, x in like.values.items()
  }
  return coef_tree.Coefs(values, like.places)


def _clip(x: types.Array, *, low: Any, high: Any) -> types.Array:
  """Clips a leaf to bounds of its dtype."""
  x = jnp.asarray(x)
  low, high = (jnp.asarray(bound).astype(x.dtype) for bound in (low, high))
  return jnp.clip(x, low, high)


def _between(
  start: Any, end: Any, *, place: Any, shape: tuple[int, ...]
) -> types.Array:
  """Returns the point of a line at a place between 0 and 1."""
  start, end = jnp.asarray(start), jnp.asarray(end)
  place = jnp.asarray(place).astype(start.dtype)
  return jnp.broadcast_to(start + (end - start) * place, shape)
