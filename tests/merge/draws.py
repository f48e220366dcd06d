"""Task vectors drawn for tests of merges that rank magnitudes."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

SHAPES = {'w': (4, 6), 'b': (5,), 's': (), 'k': (2, 2, 3, 4), 'one': (1,)}


@functools.cache
def stacked(case: str, models: int = 3) -> dict[str, np.ndarray]:
  """Generic values, or few: equal magnitudes, zeros, sums that cancel."""
  rng = np.random.default_rng(len(case))
  if case == 'generic':
    draw = lambda shape: rng.normal(size=shape) * rng.exponential(size=shape)
  else:
    draw = lambda shape: rng.integers(-3, 4, shape) / 4
  x = {k: draw((models, *shape)) for k, shape in SHAPES.items()}
  return {k: np.float32(v).astype(np.float64) for k, v in x.items()}


def jax_tree(x: Any, dtype: Any = 'float64') -> Any:
  return {k: jnp.asarray(v, dtype) for k, v in x.items()}
