"""Two models as blocks, on the host or on the accelerator."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _gains, _symmetry


def load(
  fixed: types.Params,
  moving: types.Params,
  symmetry: _symmetry.Symmetry,
  leaves: types.Leaves,
) -> list[_gains.Block]:
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
      _split(a.astype(dtype, copy=False), plan),
      _split(b.astype(dtype, copy=False), plan),
    )
    for (x, names), (y, _) in pieces:
      blocks.append(_gains.Block(names, _place(x), _place(y)))
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


def _split(
  x: np.ndarray, plan: _symmetry.Plan
) -> list[tuple[np.ndarray, _gains.Names]]:
  """Cuts a leaf into blocks, with the names of their factors."""
  parts: list[tuple[np.ndarray, tuple[_symmetry.Factor, ...]]] = [(x, ())]
  for axis, segments in enumerate(plan):
    ends = np.cumsum([_symmetry.width(s) for s in segments])[:-1]
    parts = [
      (piece, factors + segment)
      for y, factors in parts
      for piece, segment in zip(np.split(y, ends, axis), segments)
    ]
  return [
    (y.reshape([f.size for f in factors]), tuple(f.name for f in factors))
    for y, factors in parts
  ]


def _place(x: np.ndarray) -> Any:
  return x if jax.default_backend() == 'cpu' else jnp.asarray(x)
