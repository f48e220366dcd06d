"""Functions that distinguish units only on rare inputs.

A symmetry holds for all inputs. Random inputs do not take the branch, exceed
the bound or enter the loop that distinguishes these units, so a numerical test
cannot detect it.
"""

import jax
import jax.numpy as jnp

from tests.align.find.adversarial import base as adversarial
from tests.align.find.zoo import base

f = base.factorial
_SHAPES = {'a': (3, 6), 'b': (6, 2)}


def _rare(use, order=1, shapes=_SHAPES):
  """Returns the case of ``use`` on the unbounded units ``x a``."""
  return adversarial.case(
    lambda p, x: use(p, x, x @ p['a']), shapes, order, least=1
  )


def _steps(p, x, h):
  far = lambda c: (c[0] < 3) & (jnp.abs(c[1]).max() > 1e3)
  step = lambda c: (c[0] + 1, jnp.cumsum(c[1], -1))
  return jax.lax.while_loop(far, step, (0, h))[1] @ p['b']


def _experts(p, x, h):
  """Routes to the best of 4 experts; for large inputs, to expert 0."""
  scores = x @ p['router']
  best = jnp.argmax(scores, -1)
  best = jnp.where(x.sum(-1) > 1e3, 0, best)
  chosen = jax.nn.one_hot(best, 4, dtype=x.dtype)
  return jnp.einsum('be,bef,efo->bo', chosen, h.reshape(-1, 4, 3), p['b'])


CASES = {
  'branch_rarely_taken': _rare(
    lambda p, x, h: (
      jax.lax.cond(x.sum() > 1e3, lambda h: jnp.cumsum(h, -1), lambda h: h, h)
      @ p['b']
    )
  ),
  'choice_rarely_made': _rare(
    lambda p, x, h: jnp.where(x.sum() > 1e3, h[:, ::-1], h) @ p['b'],
    2**3 * f(3),
  ),
  'bound_rarely_reached': _rare(
    lambda p, x, h: (
      jnp.minimum(h, 1e3 + jnp.arange(6, dtype=h.dtype)[None]) @ p['b']
    )
  ),
  'loop_rarely_entered': _rare(_steps),
  'step_rarely_left': _rare(
    lambda p, x, h: (
      (h + jnp.round(h / 1e4) * jnp.arange(6, dtype=h.dtype)[None]) @ p['b']
    )
  ),
  'expert_rarely_fixed': _rare(
    _experts,
    f(3) ** 5,
    {'a': (3, 12), 'router': (3, 4), 'b': (4, 3, 2)},
  ),
}
