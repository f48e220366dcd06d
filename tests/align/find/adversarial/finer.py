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


def _groups(read):
  """Normalises two groups of 4 of the 6 + 2 units of two layers."""

  def apply(p, x):
    h = jnp.concatenate([jnp.tanh(x @ p['a']), jnp.sin(x @ p['c'])], 1)
    y = h.reshape(4, 2, 4)
    y = y - y.mean(2, keepdims=True)
    y = y * jax.lax.rsqrt((y * y).mean(2, keepdims=True) + 0.1)
    return read(p, y) @ p['b']

  return apply


def _gates(mix, order, **shapes):
  """Two heads of 3 units with gates ``w [h, u, v]``, diagonal in heads."""

  def use(p, h):
    y = h.reshape(4, 2, 3)
    return mix(p, y, jnp.einsum('bhi,hij->bhj', y, p['w'])).reshape(4, -1)

  return hidden(use, order, w=(2, 3, 3), **shapes)


def _nearest(distance, order):
  """Looks up the nearest row of a codebook; certification tests its axis."""

  def apply(p, x):
    h = x @ p['a']
    far = -2 * h @ p['c'].T + (p['c'] ** 2).sum(1)[None]
    best = jnp.argmin(distance(far), 1)
    return p['c'][best] @ p['b']

  shapes = {'a': (3, 4), 'c': (6, 4), 'b': (4, 2)}
  found = case(apply, shapes, order)
  return found._replace(model=found.model._replace(certified=True))


_TWO_AXES = np.einsum('nN,mM->nNmM', np.eye(6) + 1, np.eye(2) + 1)
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
  'identity_is_added': hidden(
    lambda p, h: jnp.tanh(h @ (p['w'] + jnp.eye(6))), f(6), w=(6, 6)
  ),
  'identity_of_linear_units': case(
    lambda p, x: x @ p['a'] @ (p['w'] + jnp.eye(6)) @ p['b'],
    {'a': (3, 6), 'w': (6, 6), 'b': (6, 2)},
    f(6),
  ),
  'identity_with_a_mean': hidden(
    lambda p, h: jnp.tanh(h @ (np.eye(6) - 1 / 6)), f(6)
  ),
  # Units are exchanged within their block; both blocks might be, too.
  'identity_of_blocks': hidden(
    lambda p, h: jnp.tanh(h @ (p['w'] + np.kron(np.eye(2), np.ones((3, 3))))),
    2 * f(3) ** 4,
    least=f(3) ** 4,
    w=(6, 6),
  ),
  'identity_shifted': hidden(
    lambda p, h: jnp.tanh(h @ (p['w'] + jnp.eye(6, k=1))), 1, w=(6, 6)
  ),
  'identity_of_two_axes': hidden(
    lambda p, h: jnp.tanh(
      jnp.einsum('bn,nm,nNmM->bNM', h, p['w'], _TWO_AXES)
    ).reshape(4, 12),
    f(6) * 2,
    b=(12, 2),
    w=(6, 2),
  ),
  # Units 0-3 of the first layer; its units 4 and 5; the second layer.
  'groups_of_unequal_layers': case(
    _groups(lambda p, y: y.reshape(4, 8)),
    {'a': (3, 6), 'c': (3, 2), 'b': (8, 2)},
    f(4) * f(2) * f(2),
  ),
  'groups_that_share_gains': case(
    _groups(lambda p, y: (y * p['s'][None, None]).reshape(4, 8)),
    {'a': (3, 6), 'c': (3, 2), 'b': (8, 2), 's': (4,)},
    f(2) * f(2),
  ),
  # Units depend on their head, though the gates hold them twice.
  'gates_of_heads': _gates(lambda p, y, g: jnp.tanh(g) * y, f(2) * f(3) ** 2),
  'gates_and_their_transposes': _gates(
    lambda p, y, g: jnp.tanh(g + jnp.einsum('bhi,hji->bhj', y, p['w'])) * y,
    f(2) * f(3) ** 2,
  ),
  'gates_with_shared_gains': _gates(
    lambda p, y, g: jnp.tanh(g) * y * p['s'][None, None], f(2) * f(3), s=(3,)
  ),
  'gates_of_other_heads': _gates(
    lambda p, y, g: jnp.einsum('bhi,gij->bgj', jnp.tanh(g), p['w']) * y,
    f(2) * f(3),
  ),
  'gates_across_heads': _gates(
    lambda p, y, g: jnp.tanh(jnp.einsum('bhj,bgj->bhg', g, y)),
    f(2) * f(3),
    b=(4, 2),
  ),
  'nearest_codes': _nearest(lambda far: far, f(4) * f(6)),
  'nearest_codes_by_position': _nearest(jnp.sign, f(4)),
}
