"""Two models as blocks, on the host or on the accelerator."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _symmetry
from wsl.align._match import weight_gains


def load(
  fixed: types.Params,
  moving: types.Params,
  symmetry: _symmetry.Symmetry,
  leaves: types.Leaves,
) -> list[weight_gains.Block]:
  """Reads the chosen float leaves of two models as blocks.

  Raises:
    ValueError: naming the leaf that is not finite.
  """
  chosen = tree.named(tree.select(fixed, leaves))
  others = tree.named(moving)
  blocks = []
  for name, leaf in tree.named(fixed).items():
    if not (chosen[name] and jnp.issubdtype(leaf.dtype, jnp.floating)):
      continue
    a, b = _read(leaf, 'fixed', name), _read(others[name], 'moving', name)
    dtype = np.result_type(a, b)
    plan = symmetry.plan(name)
    pieces = zip(
      _blocks.to_blocks(a.astype(dtype, copy=False), plan),
      _blocks.to_blocks(b.astype(dtype, copy=False), plan),
    )
    for (x, factors), (y, _) in pieces:
      names = tuple(factor.name for factor in factors)
      blocks.append(weight_gains.Block(names, _place(x), _place(y)))
  return blocks


def _read(leaf: Any, model: str, name: str) -> np.ndarray:
  x = np.asarray(tree.read(leaf))
  x = x.astype(np.promote_types(x.dtype, np.float32), copy=False)
  if not np.isfinite(x).all():
    raise ValueError(
      f"weight_matching: {model}: leaf '{name}' has NaN or inf: such a model "
      'cannot be matched'
    )
  return x


def _place(x: np.ndarray) -> Any:
  return x if jax.default_backend() == 'cpu' else jnp.asarray(x)
