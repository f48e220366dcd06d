"""A transformer block in plain numpy, for slices of any size."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import align

ROWS, TOKENS, INPUTS, OUTPUTS = 3, 4, 5, 2
RESIDUAL, HEADS, KEYS, VALUES, HIDDEN = 6, 4, 3, 2, 8
# The names of the groups of these sizes.
OF_RESIDUAL, OF_HEADS, OF_HIDDEN = 'down:1', 'out:0', 'bias:0'
OF_KEYS, OF_VALUES = 'qkv:1.1', 'out:1'


def network(p: Any, x: Any, *, xp: Any = jnp) -> Any:
  """Attention and a perceptron on a residual stream, sizes from the leaves.

  The queries, keys and values of all heads are one fused kernel.
  """
  h = x @ p['embed']
  heads, values, _ = p['out'].shape
  keys = (p['qkv'].shape[1] - heads * values) // (2 * heads)
  cuts = [heads * keys, 2 * heads * keys]
  parts = xp.split(h @ p['qkv'], cuts, axis=-1)
  q, k, v = (y.reshape(*y.shape[:2], heads, -1) for y in parts)
  scores = xp.exp(xp.einsum('bqhd,bkhd->bhqk', q, k) / keys**0.5)
  mixed = xp.einsum('bhqk,bkhe->bqhe', scores / scores.sum(-1)[..., None], v)
  h = h + xp.einsum('bqhe,her->bqr', mixed, p['out'])
  h = h + xp.tanh(h @ p['up'] + p['bias'][None, None]) @ p['down']
  return h @ p['head']


def params(seed: int = 0) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  columns = HEADS * (2 * KEYS + VALUES)
  shapes = {
    'embed': (INPUTS, RESIDUAL),
    'qkv': (RESIDUAL, columns),
    'out': (HEADS, VALUES, RESIDUAL),
    'up': (RESIDUAL, HIDDEN),
    'bias': (HIDDEN,),
    'down': (HIDDEN, RESIDUAL),
    'head': (RESIDUAL, OUTPUTS),
  }
  return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def inputs() -> np.ndarray:
  return np.random.default_rng(9).normal(size=(ROWS, TOKENS, INPUTS))


@functools.cache
def symmetry() -> align.Symmetry:
  shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, params()))
  return align.find_symmetry(network, shapes, inputs())


def to_numpy(tree: Any) -> Any:
  return jax.tree.map(np.asarray, tree)
