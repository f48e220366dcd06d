"""Functions whose groups are larger than a coarse rule finds.

Each is followed by a neighbour that looks alike and has a smaller group.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.align.find.adversarial import base as adversarial
from tests.align.find.zoo import base

f = base.factorial
case, hidden = adversarial.case, adversarial.hidden
_TWO = {'a': (3, 5), 'b': (3, 5), 'c': (5, 2), 'd': (5, 2)}


def _caches(start, write):
  """Writes keys and values into caches that start as one constant."""

  def apply(p, x):
    cache = jnp.asarray(start)
    keys = write(cache, jnp.tanh(x @ p['a']))
    values = write(cache, jnp.tanh(x @ p['b']))
    return (jnp.sin(keys @ p['c']) + jnp.cos(values @ p['d'])).sum(1)

  return apply


def _carries(mix):
  """Two recurrent layers that start from one array of zeros."""

  def apply(p, x):
    def step(carry, row):
      h, g = mix(p, *carry)
      return (jnp.tanh(row @ p['a'] + h), jnp.tanh(row @ p['b'] + g)), None

    zeros = jnp.zeros((4, 5))
    (h, g), _ = jax.lax.scan(step, (zeros, zeros), jnp.stack([x, 2 * x]))
    return h @ p['c'] + g @ p['d']

  return apply


def _slot(cache, h):
  return jax.lax.dynamic_update_slice(cache, h[:, None], (0, 1, 0))


def _all(cache, h):
  return cache.at[:, :].set(jnp.stack([h, h], 1))


_ZEROS = np.zeros((4, 3, 5))

CASES = {
  'caches_of_zeros': case(_caches(_ZEROS, _slot), _TWO, f(5) ** 2),
  'caches_set_by_index': case(
    _caches(_ZEROS, lambda z, h: z.at[:, 1].set(h)), _TWO, f(5) ** 2
  ),
  'caches_set_as_a_whole': case(_caches(_ZEROS[:, :2], _all), _TWO, f(5) ** 2),
  'caches_that_start_by_unit': case(
    _caches(_ZEROS + np.arange(5.0), _slot), _TWO, 1
  ),
  'carries_of_zeros': case(
    _carries(lambda p, h, g: (h @ p['u'], g @ p['v'])),
    _TWO | {'u': (5, 5), 'v': (5, 5)},
    f(5) ** 2,
  ),
  'carries_of_zeros_exchanged': case(
    _carries(lambda p, h, g: (g, h)), _TWO, f(5)
  ),
}
