"""Random parameters, away from special values such as zeros and ones."""

import re
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def perturb(
  params: types.Params, key: types.PRNGKey, *, caller: str
) -> types.Params:
  """Perturbs parameters away from special values, with NumPy.

  Positive leaves, such as scales and variances, are multiplied by log-normal
  noise; to others, noise of their own root mean square is added. Leaves given
  as shapes are drawn, positive if their name is ``scale`` or ``var``.

  Args:
    params: arrays, or shapes of floating leaves.
    key: draws the noise; each leaf is keyed by its name.
    caller: the public function to name in the error message.

  Returns:
    NumPy arrays of the same shapes and dtypes; integer leaves are unchanged.
  """
  seed = np.asarray(jax.random.bits(key, (4,), np.uint32)).tolist()

  def one(name: str, leaf: Any) -> np.ndarray:
    rng = np.random.default_rng([*seed, zlib.crc32(name.encode())])
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    if isinstance(leaf, jax.ShapeDtypeStruct):
      if not floating:
        raise ValueError(
          f"{caller}: leaf '{name}' of params is not floating: give its values"
        )
      positive = re.search('(scale|var)(iance)?(/value)?$', name)
      x = np.full(leaf.shape, 1.0 if positive else 0.0)
      spread = leaf.shape[-2] ** -0.5 if len(leaf.shape) > 1 else 0.5
    elif not tree.is_float(leaf):
      return np.asarray(leaf)
    else:
      wide = np.complex128 if tree.is_complex(leaf) else np.float64
      x = np.asarray(leaf).astype(wide)
      spread = float(np.sqrt(np.mean(np.abs(x) ** 2))) if x.size else 0.0
    # The function may need a positive leaf, such as a variance. Noise has the
    # size of the leaf, so that no leaf dominates the output.
    noise = rng.normal(size=x.shape)
    if np.iscomplexobj(x):
      x = x + (spread or 0.5) * (noise + 1j * rng.normal(size=x.shape))
    elif x.min(initial=np.inf) > 0:
      x = x * np.exp(0.5 * noise)
    else:
      x = x + (spread or 0.5) * noise
    return x.astype(leaf.dtype)

  return tree.map_named(one, params)
