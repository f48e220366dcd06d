"""Routers of the same style whose experts must stay pinned."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.align.find.experts import moe, routers
from tests.align.find.zoo import base


def _scored(change):
  """Routes by changed scores."""
  return lambda p, x: moe.mix(p, x, moe.top(change(x @ p['router'], p, x)))


def _numbers(use):
  """Multiplies the output of a sound router by a function of its indices."""

  def apply(p, x):
    best, which = jax.lax.top_k(x @ p['router'], 2)
    y = moe.mix(p, x, moe.hot(which, jax.nn.softmax(best)))
    return y * use(p, which)

  return apply


def _dead_input(p, x):
  """All hidden units may be zero, and then all scores."""
  h = jax.nn.relu(x @ p['in'])
  return x + moe.experts(p, x, moe.top(h @ p['router'])) * 2


def _own_noise(p, x, noise):
  """The noise is an input, one number for each expert: it is not permuted."""
  return moe.mix(p, x, moe.top(x @ p['router'] + noise))


def _arrival(p, x):
  """Tokens are sorted by their expert, which orders the sum over tokens."""
  which = jnp.argmax(x @ p['router'], -1)
  order = jnp.argsort(which)
  return jnp.cumsum(x[order], 0)


def _switched(p, x):
  """A branch for each expert: the branches are code."""
  which = jnp.argmax((x @ p['router']).sum(0))
  branches = [lambda x, e=e: jnp.tanh(x @ p['up'][e]) for e in range(moe.E)]
  return jax.lax.switch(which, branches, x) @ p['down'][0]


def _wrong_table(p, x):
  """The index is compared with iota in reverse."""
  which = jnp.argmax(x @ p['router'], -1)
  hot = which[:, None] == jnp.arange(moe.E)[None, ::-1]
  return moe.mix(p, x, hot.astype(x.dtype))


def _next_expert(p, x):
  """Token b uses expert argmax + 1."""
  which = (jnp.argmax(x @ p['router'], -1) + 1) % moe.E
  return moe.mix(p, x, jax.nn.one_hot(which, moe.E, dtype=x.dtype))


def _shifted_lookup(p, x):
  """The first expert is replaced by the second, without a sum."""
  which = jnp.maximum(jnp.argmax(x @ p['router'], -1), 1)
  return x + jnp.einsum('bd,bdf->bf', x, p['up'][which]) @ p['down'][0]


def _carried(p, x):
  """The index of a token is used as a number at the next one."""

  def step(last, t):
    best = jnp.argmax(t @ p['router'])
    return best, moe.mix(p, t[None], jax.nn.one_hot(best, moe.E)[None])[
      0
    ] * last

  return jax.lax.scan(step, jnp.zeros((), int), x)[1]


def _masked_away(p, x):
  """Tokens with a negative entry have no scores: all are -inf."""
  mask = jnp.where(x[:, :1] > 0, 0.0, -jnp.inf)
  which = jax.lax.top_k(x @ p['router'] + mask, 2)[1]
  return moe.mix(p, x, jax.nn.one_hot(which, moe.E, dtype=x.dtype).sum(1))


def _cancelled(p, x):
  """The scores of one router minus themselves."""
  scores = x @ p['router'] - (2 * x) @ p['router'] / 2
  which = jax.lax.top_k(scores, 2)[1]
  return moe.mix(p, x, jax.nn.one_hot(which, moe.E, dtype=x.dtype).sum(1))


def _projected(p, x):
  """The router's input is orthogonal to the difference of two experts."""
  a, b = p['router'][:, 0], p['router'][:, 1]
  d = (a - b)[None]
  h = x - d * (x * d).sum(-1, keepdims=True) / (d * d).sum()
  which = jax.lax.top_k(h @ p['router'], 1)[1]
  return moe.mix(p, x, jax.nn.one_hot(which, moe.E, dtype=x.dtype).sum(1))


def _masked(mask):
  """Takes the best expert after some are masked by a function of the scores."""

  def apply(p, x):
    scores = jax.nn.softmax(x @ p['router'])
    rest = mask(scores, x)
    second = jax.nn.one_hot(jnp.argmax(rest, -1), moe.E, dtype=x.dtype)
    return moe.mix(p, x, scores * second)

  return apply


def _both(scores):
  """One-hot encodings of the two best experts, summed."""
  which = jax.lax.top_k(scores, 2)[1]
  return jax.nn.one_hot(which, moe.E, dtype=scores.dtype).sum(1)


def _scanned_experts(p, x):
  """A scan over experts that decays what earlier steps have added."""
  gates = moe.top(x @ p['router'])

  def add(total, expert):
    up, down, gate = expert
    return 0.9 * total + gate[:, None] * (jax.nn.silu(x @ up) @ down), None

  return jax.lax.scan(add, x, (p['up'], p['down'], gates.T))[0]


def _read_total(p, x):
  """Each expert of a scan reads what the earlier ones have added."""
  gates = moe.top(x @ p['router'])

  def add(total, expert):
    up, down, gate = expert
    return total + gate[:, None] * (jax.nn.silu(total @ up) @ down), None

  return jax.lax.scan(add, x, (p['up'], p['down'], gates.T))[0]


def _partial_sums(p, x):
  """The sums after each expert are returned too."""
  gates = moe.top(x @ p['router'])

  def add(total, expert):
    up, down, gate = expert
    total = total + gate[:, None] * (jax.nn.silu(x @ up) @ down)
    return total, total

  return jax.lax.scan(add, x, (p['up'], p['down'], gates.T))


@jax.custom_jvp
def logaddexp(x, y):
  """A function that has the name of another one: most scores are zero."""
  return jnp.maximum(x, y)


logaddexp.defjvps(lambda t, out, x, y: t, None)


_ARANGE = jnp.arange(moe.E, dtype=jnp.float64)
_MORE = {'in': (moe.W, 3), 'router': (3, moe.E)}


def _pinned(router, reason, *, most=moe.FIXED):
  """A case of the parameters ``ROUTED`` alone."""
  return router, moe.draw(*moe.ROUTED), moe.X, most, reason


# A bound of the order, and why the experts are pinned.
PINNED = {
  'relu_scores': _pinned(
    _scored(lambda s, p, x: jax.nn.relu(s)), 'ties may be common'
  ),
  'rounded_scores': _pinned(
    _scored(lambda s, p, x: jnp.round(s)), 'ties may be common'
  ),
  'clipped_scores': _pinned(
    _scored(lambda s, p, x: jnp.clip(s, -0.2, 0.2)), 'ties may be common'
  ),
  'softplus_by_name': _pinned(
    _scored(lambda s, p, x: logaddexp(s, 0.0)), 'ties may be common'
  ),
  'soft_maximum_of_two': (
    _scored(lambda s, p, x: jnp.logaddexp(s - 1e3, x[:, :1])),
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.FIXED,
    'ties may be common',
  ),
  'softplus_of_equal_scores': _pinned(
    _scored(lambda s, p, x: jax.nn.softplus(jax.nn.relu(s))),
    'ties may be common',
  ),
  'scores_times_zero': _pinned(
    _scored(lambda s, p, x: s * 0.0), 'ties may be common'
  ),
  'same_scores': (
    _scored(lambda s, p, x: jnp.broadcast_to(x @ p['one'], s.shape) + 0 * s),
    moe.draw(*moe.ROUTED, one=(moe.W, 1)),
    moe.X,
    moe.FIXED,
    'ties may be common',
  ),
  'cancelled_scores': _pinned(_cancelled, 'ties may be common'),
  'projected_input': _pinned(_projected, ''),
  'absorbed_scores': _pinned(
    _scored(lambda s, p, x: s + jnp.where(x[:, :1] > 0, 1e30, 0.0)),
    'ties may be common',
  ),
  'dead_input': (
    _dead_input,
    moe.draw('up', 'down', **_MORE),
    moe.X,
    moe.FIXED * moe.f(3),
    'ties may be common',
  ),
  'masked_away': _pinned(_masked_away, 'ties may be common'),
  'tie_breaking': _pinned(
    _scored(lambda s, p, x: s + 1e-3 * _ARANGE[None]),
    'a constant that varies along it',
  ),
  'noise_for_each_expert': (
    _own_noise,
    moe.draw(*moe.ROUTED),
    (*moe.X, base.normal(moe.B, moe.E, seed=5)),
    moe.FIXED,
    'an axis of the input',
  ),
  'index_as_factor': _pinned(
    _numbers(lambda p, i: i.sum(1, keepdims=True)),
    'its indices are used as numbers',
  ),
  'index_compared': _pinned(
    _numbers(lambda p, i: 1 + (i[:, :1] < 2)), 'its indices are used as numbers'
  ),
  'one_expert_named': _pinned(
    _numbers(lambda p, i: 1 + (i[:, :1] == 1)),
    'its indices are used as numbers',
  ),
  'order_of_indices': _pinned(
    _numbers(lambda p, i: 1 + (i[:, :1] < i[:, 1:])),
    'its indices are used as numbers',
  ),
  'sorted_indices': _pinned(
    _numbers(lambda p, i: p['up'][jnp.sort(i, -1)[:, 0], 0, :1]),
    'its indices are used as numbers',
  ),
  'lookup_in_a_longer_table': (
    _numbers(lambda p, i: p['table'][i[:, 0]][:, None]),
    moe.draw(*moe.ROUTED, table=(moe.E + 1,)),
    moe.X,
    moe.FIXED,
    'its indices are used as numbers',
  ),
  'lookup_in_a_constant': _pinned(
    _numbers(lambda p, i: _ARANGE[i[:, 0]][:, None]),
    'a constant that varies along it',
  ),
  'reversed_iota': _pinned(_wrong_table, ''),
  'next_expert': _pinned(_next_expert, ''),
  'shifted_lookup': _pinned(_shifted_lookup, '', most=moe.f(moe.F)),
  'carried_index': _pinned(_carried, ''),
  'tokens_sorted_by_expert': (_arrival, moe.draw('router'), moe.X, 1, ''),
  'branch_for_each_expert': _pinned(_switched, '', most=moe.f(moe.F)),
  'returned_index': _pinned(
    lambda p, x: (routers.switch(p, x), jnp.argmax(x @ p['router'], -1)),
    'its indices are used as numbers',
  ),
  'cosine': _pinned(routers.cosine, 'ties may be common'),
  'group_limited': _pinned(routers.group_limited, 'ties may be common'),
  'two_are_masked': _pinned(
    _masked(lambda s, x: jnp.where(_both(s) > 0, -jnp.inf, s)),
    'ties may be common',
  ),
  'masked_by_a_threshold': _pinned(
    _masked(lambda s, x: jnp.where(s > 0.5, -jnp.inf, s)), 'ties may be common'
  ),
  'all_but_the_best_are_masked': _pinned(
    _masked(lambda s, x: s * routers.best(s)), 'ties may be common'
  ),
  'one_token_is_masked': _pinned(
    _masked(
      lambda s, x: jnp.where(
        jax.nn.one_hot(jnp.argmax(x[:, 0]), moe.B)[:, None] > 0, -jnp.inf, s
      )
    ),
    '',
  ),
  'negated_bits_are_masked': _pinned(
    _masked(
      lambda s, x: s * (~routers.best(s).astype(np.int32)).astype(s.dtype)
    ),
    'ties may be common',
  ),
  'the_same_mask_for_all_experts': _pinned(
    _masked(
      lambda s, x: jnp.where(
        jnp.broadcast_to(jnp.arange(1)[None] == 0, s.shape), -jnp.inf, s
      )
    ),
    'ties may be common',
  ),
  'masked_then_added': _pinned(
    _masked(
      lambda s, x: (
        jnp.where(routers.best(s) > 0, -jnp.inf, s)
        + jnp.where(x[:, :1] > 0, jnp.inf, 0.0)
      )
    ),
    'ties may be common',
  ),
  'relu_scores_masked': _pinned(
    _masked(
      lambda s, x: jnp.where(
        routers.best(s) > 0, -jnp.inf, jax.nn.relu(s - 0.3)
      )
    ),
    'ties may be common',
  ),
  'scanned_experts': _pinned(_scanned_experts, 'the steps of a scan'),
  'scan_reads_total': _pinned(_read_total, 'the steps of a scan'),
  'partial_sums': _pinned(_partial_sums, ''),
}
