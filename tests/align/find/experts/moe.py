"""Shapes of a small mixture of experts, and what all routers share."""

import math

import jax
import jax.numpy as jnp

from tests.align.find.zoo import base

E, W, F, B = 4, 5, 6, 7
f = math.factorial
NESTED = f(E) * f(F) ** E  # units are ordered in each expert
ALIKE = f(E) * f(F)  # units have one order for all experts
FIXED = f(F) ** E  # experts are pinned, units are not

SHAPES = {
  'router': (W, E),
  'bias': (E,),
  'up': (E, W, F),
  'up_bias': (E, F),
  'down': (E, F, W),
  'scale': (W,),
  'shift': (W,),
}


def draw(*names, **more):
  shapes = {n: SHAPES[n] for n in names} | more
  return base.draw(shapes)


ROUTED = ('router', 'up', 'down')


def experts(p, x, gates):
  """Applies all experts and weights them by ``gates [b, e]``."""
  h = jax.nn.silu(jnp.einsum('bd,edf->bef', x, p['up']))
  return jnp.einsum('be,bef,efd->bd', gates, h, p['down'])


def mix(p, x, gates):
  return x + experts(p, x, gates)


def hot(index, gates):
  """Scatters gates ``[b, k]`` to ``[b, e]`` by a one-hot encoding."""
  hot = jax.nn.one_hot(index, E, dtype=gates.dtype)
  return jnp.einsum('bk,bke->be', gates, hot)


def top(scores):
  """Gates ``[b, e]`` of the two largest scores."""
  best, which = jax.lax.top_k(scores, 2)
  return hot(which, jax.nn.softmax(best))


X = (base.normal(B, W),)
