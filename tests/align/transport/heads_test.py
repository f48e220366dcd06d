"""Transport of heads and of the units inside them."""

import itertools

import jax.numpy as jnp
import numpy as np

from tests.align.transport.widths import (
  attention,
  ATTENTION_VIEWS,
  drawn,
  semi_permutations,
)
from wsl import align, stats


def test_heads_and_their_units_are_the_best_of_all():
  """Enumerates all semi-permutations of units in all pairs of heads."""
  a, b = (2, 2, 3), (3, 3, 2)
  symmetry, other = attention(*a), attention(*b)
  fixed, moving = drawn(symmetry, 0), drawn(other, 1)
  found = align.transport(
    fixed, moving, symmetry=symmetry, other=other, views=ATTENTION_VIEWS
  )
  cut = lambda p, n, s, axis: (
    np.moveaxis(p[n].reshape((3, *s) if axis else (*s, 3)), 0, -1)
    if axis
    else p[n].reshape((*s, 3))
  )
  parts = {'q': 1, 'k': 1, 'v': 1, 'o': 0}
  values = np.zeros((2, 3))
  best = {'qk': {}, 'vo': {}}
  for i, j in itertools.product(range(2), range(3)):
    for group, leaves, n, m in (('qk', 'qk', 2, 3), ('vo', 'vo', 3, 2)):
      cost = np.zeros((n, m))
      for leaf in leaves:
        x = cut(fixed, leaf, (2, n), parts[leaf])[i]
        y = cut(moving, leaf, (3, m), parts[leaf])[j]
        # Weights out of a head and of its units are taken per mass.
        y = y if parts[leaf] else y * 3 / 2 * m / n
        cost += np.square(x[:, None] - y[None]).sum(-1)
      options = [
        (np.sum(t * cost) * (1 if n >= m else n / m), k)
        for k, t in enumerate(semi_permutations(n, m))
      ]
      value, k = min(options)
      values[i, j] += value
      best[group][i, j] = semi_permutations(n, m)[k] * (1 if n >= m else n / m)
  head = min(semi_permutations(2, 3), key=lambda t: np.sum(t * values))
  np.testing.assert_allclose(found.maps['h'], head * 2 / 3)
  for group, pairs in best.items():
    for (i, j), wanted in pairs.items():
      np.testing.assert_allclose(found.maps[group][i, j], wanted)
  # The carried output map sums over both heads and units.
  o = moving['o'].reshape(3, 2, 3)
  divide = np.einsum('ij,ijuv->iujv', head, np.asarray(found.maps['vo']))
  divide /= divide.sum((0, 1))
  wanted = np.einsum('iujv,jvx->iux', divide, o).reshape(6, 3)
  np.testing.assert_allclose(found.params['o'], wanted, atol=1e-12)


def _scores(params, x):
  """Attention scores of heads of any size, without a temperature."""
  q, k = (jnp.einsum('sx,xhu->shu', x, params[n]) for n in 'qk')
  return jnp.einsum('shu,thu->hst', q, k).sum(0)


def test_units_of_queries_and_keys_are_divided_in_one_of_them():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(4, 3)))
  draw = lambda h, u: {n: jnp.asarray(rng.normal(size=(3, h, u))) for n in 'qk'}
  small, wide = draw(2, 2), draw(2, 5)
  find = lambda p: align.find_symmetry(_scores, p, x)
  views = stats.matrix_views(_scores, wide, x)
  found = align.transport(
    wide, small, symmetry=find(wide), other=find(small), views=views
  )
  wanted = np.asarray(_scores(small, x))
  np.testing.assert_allclose(_scores(found.params, x), wanted, atol=1e-12)
