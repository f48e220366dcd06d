"""A small network with gauges of every kind but phases, on numpy or JAX."""

import jax.numpy as jnp
import numpy as np

from wsl import align

X = np.random.default_rng(0).normal(size=(6, 3))
# Every kind: scales of a, signs of d, a rotated stream, linear maps in heads.
SIZES = {
  **{'a': (3, 5), 'b': (5,), 'e': (5, 4), 'w': (4, 2), 'u': (4, 5)},
  **{'d': (5, 4), 'o': (2, 3, 4)},
  **dict.fromkeys('qkv', (5, 2, 3)),
}


def draw(seed):
  rng = np.random.default_rng(seed)
  one = lambda size: rng.normal(size=size) / np.sqrt(size[0])
  return {n: one(s) for n, s in SIZES.items()}


def net(p, x, xp=jnp):
  rms = lambda h: h / xp.sqrt(xp.mean(h * h, -1, keepdims=True) + 1e-6)
  h = xp.maximum(x @ p['a'] + p['b'][None], 0)
  q, k, v = (xp.einsum('td,dhu->htu', h, p[n]) for n in 'qkv')
  scores = xp.exp(xp.einsum('htu,hsu->hts', q, k) / 4)
  scores = scores / xp.sum(scores, -1, keepdims=True)
  y = h @ p['e'] + xp.einsum('hts,hsu,hud->td', scores, v, p['o'])
  y = y + xp.tanh(rms(y) @ p['u']) @ p['d']
  return rms(y) @ p['w']


SYMMETRY = align.find_symmetry(net, draw(0), X)


def permuted(p, g, symmetry=SYMMETRY):
  return align.permute(p, g, symmetry=symmetry)
