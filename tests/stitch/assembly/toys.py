"""A small residual network, its data and its loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wsl import stitch

KEY = jax.random.key(0)
INPUTS, CLASSES = 5, 2


def dense(params, x):
  return x @ params['w'] + params['b'][None]


def block(params, h):
  return h + jnp.tanh(dense(params, h))


def network(seed=0, depth=4, width=3):
  layer = lambda seed, *shape: {
    'w': draw(seed, *shape),
    'b': draw(seed + 1, *shape[:-2], shape[-1]),
  }
  params = {
    'embed': layer(seed, INPUTS, width),
    'blocks': layer(seed + 2, depth, width, width),
    'head': layer(seed + 4, width, CLASSES),
  }
  return stitch.Segmented(params, dense, block, dense)


def draw(seed, *shape):
  return jnp.asarray(np.random.RandomState(seed).randn(*shape)) / 2


def examples(count):
  """Returns inputs and labels."""
  x = np.random.RandomState(0).randn(count, INPUTS)
  return x, np.arange(count) % CLASSES


def criterion(logits, labels):
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return jnp.mean(losses)
