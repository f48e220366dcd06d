"""Experts under routing by rank: which are freed, and which stay pinned.

A router has ``E = 4`` experts of ``F = 6`` hidden units on a stream of
``W = 5``. The order of each group is derived by hand: experts may be permuted
with their columns of the router, 4!, hidden units within each expert, 6!^4,
or, where experts are looked up by index, in all experts alike, 6!.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.find.zoo import base
from wsl import align

E, W, F, B = 4, 5, 6, 7
f = math.factorial
NESTED = f(E) * f(F) ** E  # units are ordered in each expert
ALIKE = f(E) * f(F)  # units have one order for all experts
FIXED = f(F) ** E  # experts are pinned, units are not

_SHAPES = {
  'router': (W, E),
  'bias': (E,),
  'up': (E, W, F),
  'up_bias': (E, F),
  'down': (E, F, W),
  'scale': (W,),
  'shift': (W,),
}


def _draw(*names, **more):
  shapes = {n: _SHAPES[n] for n in names} | more
  return base.draw(shapes)


ROUTED = ('router', 'up', 'down')


def _experts(p, x, gates):
  """Applies all experts and weights them by ``gates [b, e]``."""
  h = jax.nn.silu(jnp.einsum('bd,edf->bef', x, p['up']))
  return jnp.einsum('be,bef,efd->bd', gates, h, p['down'])


def _mix(p, x, gates):
  return x + _experts(p, x, gates)


def _hot(index, gates):
  """Scatters gates ``[b, k]`` to ``[b, e]`` by a one-hot encoding."""
  hot = jax.nn.one_hot(index, E, dtype=gates.dtype)
  return jnp.einsum('bk,bke->be', gates, hot)


def mixtral(p, x):
  """The softmax of the two best logits."""
  best, which = jax.lax.top_k(x @ p['router'], 2)
  return _mix(p, x, _hot(which, jax.nn.softmax(best)))


def renormalised(p, x):
  """The softmax of all logits, cut and renormalised."""
  best, which = jax.lax.top_k(jax.nn.softmax(x @ p['router']), 2)
  return _mix(p, x, _hot(which, best / best.sum(-1, keepdims=True)))


def switch(p, x):
  """The single best expert, scaled by its probability."""
  probabilities = jax.nn.softmax(x @ p['router'])
  hot = jax.nn.one_hot(jnp.argmax(probabilities, -1), E, dtype=x.dtype)
  return _mix(p, x, probabilities * hot)


def threshold(p, x):
  """All experts whose score is at least the second largest."""
  scores = x @ p['router']
  kth = jnp.sort(scores, -1)[:, -2:-1]
  return _mix(p, x, jax.nn.softmax(jnp.where(scores >= kth, scores, -jnp.inf)))


def top_k_threshold(p, x):
  """As ``threshold``, by the values of ``top_k`` alone; ties do not matter."""
  scores = jax.nn.relu(x @ p['router'])
  kth = jax.lax.top_k(scores, 2)[0][:, -1:]
  return _mix(p, x, scores * (scores >= kth))


def expert_choice(p, x):
  """Each expert chooses three tokens, by rank of their scores."""
  scores = jax.nn.softmax(x @ p['router'])
  gates, which = jax.lax.top_k(scores.T, 3)  # [e, k]
  h = jax.nn.silu(jnp.einsum('ekd,edf->ekf', x[which], p['up']))
  y = jnp.einsum('ekf,efd->ekd', h, p['down']) * gates[..., None]
  return x.at[which].add(y)


def expert_choice_one_hot(p, x):
  """As ``expert_choice``, dispatched by products."""
  scores = jax.nn.softmax(x @ p['router'], 0)
  gates, which = jax.lax.top_k(scores.T, 3)
  hot = jax.nn.one_hot(which, B, dtype=x.dtype)  # [e, k, b]
  h = jnp.tanh(jnp.einsum('ekb,bd,edf->ekf', hot, x, p['up']))
  return x + jnp.einsum('ek,ekb,ekf,efd->bd', gates, hot, h, p['down'])


def deepseek(p, x):
  """Sigmoid scores; a bias for balance selects, but does not weight."""
  scores = jax.nn.sigmoid(x @ p['router'])
  _, which = jax.lax.top_k(scores + p['bias'][None], 2)
  gates = jnp.take_along_axis(scores, which, axis=-1)
  return _mix(p, x, _hot(which, gates / gates.sum(-1, keepdims=True)))


def argsort(p, x):
  """The last two experts of a sort, weighted by ``take_along_axis``."""
  scores = x @ p['router']
  which = jnp.argsort(scores, axis=-1)[:, ::-1][:, :2]
  gates = jax.nn.softmax(jnp.take_along_axis(scores, which, axis=-1))
  return _mix(p, x, _hot(which, gates))


def argsort_descending(p, x):
  scores = x @ p['router']
  which = jnp.argsort(-scores, axis=-1)[:, :2]
  gates = jax.nn.sigmoid(jnp.take_along_axis(scores, which, axis=-1))
  return _mix(p, x, _hot(which, gates))


def sorted_pairs(p, x):
  """Sorts payloads by the scores."""
  scores = x @ p['router']
  bias = jnp.broadcast_to(p['bias'][None], scores.shape)
  _, moved = jax.lax.sort((scores, bias), num_keys=1)
  best, which = jax.lax.top_k(scores, 1)
  return _mix(p, x, _hot(which, best)) * moved[:, -1:]


def gathered(p, x):
  """Looks up the weights of each token's experts."""
  best, which = jax.lax.top_k(x @ p['router'], 2)
  h = jax.nn.silu(jnp.einsum('bd,bkdf->bkf', x, p['up'][which]))
  y = jnp.einsum('bkf,bkfd->bkd', h, p['down'][which])
  return x + jnp.einsum('bk,bkd->bd', jax.nn.softmax(best), y)


def taken(p, x):
  """As ``gathered``, with ``jnp.take`` and ``argmax``."""
  which = jnp.argmax(x @ p['router'], -1)
  up, down = (jnp.take(p[name], which, axis=0) for name in ('up', 'down'))
  h = jax.nn.silu(jnp.einsum('bd,bdf->bf', x, up))
  return x + jnp.einsum('bf,bfd->bd', h, down)


def per_token(p, x):
  """A function of one token, mapped over tokens."""

  def one(t):
    which = jnp.argmax(t @ p['router'])
    return t + jax.nn.silu(t @ p['up'][which]) @ p['down'][which]

  return jax.vmap(one)(x)


def sliced(p, x):
  """A single token, whose expert is a dynamic slice."""
  t = x.sum(0)
  which = jnp.argmax(t @ p['router'])
  up = jax.lax.dynamic_index_in_dim(p['up'], which, keepdims=False)
  down = jax.lax.dynamic_index_in_dim(p['down'], which, keepdims=False)
  return t + jax.nn.silu(t @ up) @ down


def scattered(p, x):
  """Writes the gates to ``[b, e]`` at pairs of indices."""
  best, which = jax.lax.top_k(x @ p['router'], 2)
  rows = jnp.arange(B)[:, None]
  gates = jnp.zeros((B, E)).at[rows, which].set(jax.nn.softmax(best))
  return _mix(p, x, gates)


def added(p, x):
  """Adds the gates, and reads scores at pairs of indices."""
  scores = jax.nn.softmax(x @ p['router'])
  which = jax.lax.top_k(scores, 2)[1]
  rows = jnp.arange(B)[:, None]
  gates = jnp.zeros((B, E)).at[rows, which].add(scores[rows, which])
  return _mix(p, x, gates)


def along(p, x):
  """Writes the gates with ``put_along_axis``."""
  best, which = jax.lax.top_k(x @ p['router'], 2)
  gates = jnp.put_along_axis(
    jnp.zeros((B, E)), which, jax.nn.sigmoid(best), axis=-1, inplace=False
  )
  return _mix(p, x, gates)


def segments(p, x):
  """Sums the tokens of each expert, as a task embedding."""
  which = jnp.argmax(x @ p['router'], -1)
  sums = jax.ops.segment_sum(x, which, num_segments=E)  # [e, d]
  h = jax.nn.silu(jnp.einsum('ed,edf->ef', sums, p['up']))
  return jnp.einsum('ef,efd->ed', h, p['down'])[which]


def capacity(p, x):
  """Switch with capacity: tokens of an expert are kept in their order."""
  scores = jax.nn.softmax(x @ p['router'])
  hot = jax.nn.one_hot(jnp.argmax(scores, -1), E, dtype=jnp.int32)
  place = jnp.cumsum(hot, 0) * hot - 1  # [b, e]
  dispatch = jax.nn.one_hot(place, 3, dtype=x.dtype)  # [b, e, c]
  inputs = jnp.einsum('bec,bd->ecd', dispatch, x)
  h = jax.nn.silu(jnp.einsum('ecd,edf->ecf', inputs, p['up']))
  outputs = jnp.einsum('ecf,efd->ecd', h, p['down'])
  combine = dispatch * scores[..., None]
  return x + jnp.einsum('bec,ecd->bd', combine, outputs)


def gshard(p, x):
  """The two best experts, one after the other, with capacity."""
  scores = jax.nn.softmax(x @ p['router'])
  _, which = jax.lax.top_k(scores, 2)
  first = jax.nn.one_hot(which[:, 0], E, dtype=x.dtype)
  second = jax.nn.one_hot(which[:, 1], E, dtype=x.dtype)
  taken = jnp.cumsum(first, 0)[-1:]
  place = jnp.cumsum(second, 0) + taken
  keep = second * (place < 5)
  gates = scores * (first + keep)
  return _mix(p, x, gates / gates.sum(-1, keepdims=True))


def load_balance(p, x):
  """Also returns the auxiliary loss: shares times mean probabilities."""
  scores = jax.nn.softmax(x @ p['router'])
  hot = jax.nn.one_hot(jnp.argmax(scores, -1), E, dtype=x.dtype)
  loss = E * jnp.sum(hot.mean(0) * scores.mean(0))
  return _mix(p, x, scores * hot), loss


def jittered(p, x, noise):
  """Multiplies the router's input by noise, as Switch does."""
  best, which = jax.lax.top_k((x * noise) @ p['router'], 2)
  return _mix(p, x, _hot(which, jax.nn.softmax(best)))


def noisy(p, x, noise):
  """Noisy gating with one draw for a token, scaled by a learned deviation."""
  spread = jax.nn.softplus(x @ p['noise'])
  scores = x @ p['router'] + noise * spread
  best, which = jax.lax.top_k(scores, 2)
  return _mix(p, x, _hot(which, jax.nn.softmax(best)))


def normed(p, x):
  """RMSNorm after a residual block with a ReLU, then a router without bias."""
  x = x + jax.nn.relu(x @ p['in']) @ p['out']
  h = base.rms_norm(x, p['scale'])
  best, which = jax.lax.top_k(h @ p['router'], 2)
  return x + _experts(p, h, _hot(which, jax.nn.softmax(best)))


def layer_normed(p, x):
  """Two layers: the second router reads what the first experts write."""
  for layer in p['layers']:
    h = base.layer_norm(x, layer['scale'], layer['shift'])
    best, which = jax.lax.top_k(h @ layer['router'], 2)
    x = x + _experts(layer, h, _hot(which, jax.nn.softmax(best)))
  return x


def scanned(p, x):
  """Layers of experts in a scan; each has its own router."""

  def step(x, layer):
    h = base.rms_norm(x, layer['scale'])
    best, which = jax.lax.top_k(h @ layer['router'], 2)
    return x + _experts(layer, h, _hot(which, jax.nn.softmax(best))), None

  return jax.lax.scan(step, x, p['layers'])[0]


def shared_lookup(p, x):
  """Two routers over the same experts, compared with each other."""
  a = jnp.argmax(x @ p['router'], -1)
  b = jnp.argmax(x @ p['other'], -1)
  gates = jax.nn.one_hot(a, E, dtype=x.dtype)
  gates = gates + jax.nn.one_hot(jnp.where(x[:, 0] > 0, a, b), E)
  return _mix(p, x, gates) * jnp.where(a == b, 2.0, 1.0)[:, None]


def soft_prompts(p, x):
  """Free queries choose experts: their order is free as well."""
  best, which = jax.lax.top_k(p['queries'] @ p['router'], 2)
  gates = _hot(which, jax.nn.softmax(best))
  h = jnp.tanh(jnp.einsum('qd,edf->qef', p['queries'], p['up']))
  y = jnp.einsum('qe,qef,efd->qd', gates, h, p['down'])
  return x @ (y.T @ y)


X = (base.normal(B, W),)
_LAYER = {n: _SHAPES[n] for n in (*ROUTED, 'scale', 'shift')}
_SCAN = {n: (3, *_SHAPES[n]) for n in (*ROUTED, 'scale')}
FREED = {
  'mixtral': (mixtral, _draw(*ROUTED), X, NESTED),
  'renormalised': (renormalised, _draw(*ROUTED), X, NESTED),
  'switch': (switch, _draw(*ROUTED), X, NESTED),
  'threshold': (threshold, _draw(*ROUTED), X, NESTED),
  'top_k_threshold': (top_k_threshold, _draw(*ROUTED), X, NESTED),
  'expert_choice': (expert_choice, _draw(*ROUTED), X, NESTED),
  'expert_choice_one_hot': (expert_choice_one_hot, _draw(*ROUTED), X, NESTED),
  'deepseek': (deepseek, _draw(*ROUTED, 'bias'), X, NESTED),
  'argsort': (argsort, _draw(*ROUTED), X, NESTED),
  'argsort_descending': (argsort_descending, _draw(*ROUTED), X, NESTED),
  'sorted_pairs': (sorted_pairs, _draw(*ROUTED, 'bias'), X, NESTED),
  'gathered': (gathered, _draw(*ROUTED), X, ALIKE),
  'taken': (taken, _draw(*ROUTED), X, ALIKE),
  'per_token': (per_token, _draw(*ROUTED), X, ALIKE),
  'sliced': (sliced, _draw(*ROUTED), X, ALIKE),
  'scattered': (scattered, _draw(*ROUTED), X, NESTED),
  'added': (added, _draw(*ROUTED), X, NESTED),
  'along': (along, _draw(*ROUTED), X, NESTED),
  'segments': (segments, _draw(*ROUTED), X, NESTED),
  'capacity': (capacity, _draw(*ROUTED), X, NESTED),
  'gshard': (gshard, _draw(*ROUTED), X, NESTED),
  'load_balance': (load_balance, _draw(*ROUTED), X, NESTED),
  'jittered': (
    jittered,
    _draw(*ROUTED),
    (*X, 1 + 0.1 * base.normal(B, W, seed=3)),
    NESTED,
  ),
  'noisy': (
    noisy,
    _draw(*ROUTED, noise=(W, E)),
    (*X, base.normal(B, 1, seed=3)),
    NESTED,
  ),
  'normed': (
    normed,
    _draw(*ROUTED, 'scale', **{'in': (W, 3), 'out': (3, W)}),
    X,
    NESTED * f(3),
  ),
  'layer_normed': (
    layer_normed,
    base.draw({'layers': [_LAYER, _LAYER]}),
    X,
    NESTED**2,
  ),
  'scanned': (scanned, base.draw({'layers': _SCAN}), X, NESTED**3),
  'shared_lookup': (shared_lookup, _draw(*ROUTED, other=(W, E)), X, NESTED),
  'soft_prompts': (
    soft_prompts,
    _draw(*ROUTED, queries=(3, W)),
    X,
    NESTED * f(3) * f(W),
  ),
}


@pytest.mark.parametrize('name', FREED)
def test_experts_are_freed(name):
  apply, params, inputs, order = FREED[name]
  apply = base.lenient(apply)
  symmetry = align.find_symmetry(apply, params, *inputs)
  print(align.explain(symmetry))
  report = align.check(symmetry, apply, params, *inputs, key=jax.random.key(1))
  assert report.error < 1e-12
  assert np.isclose(symmetry.log10_order, math.log10(order), rtol=1e-9)


def _top(scores):
  """Gates ``[b, e]`` of the two largest scores."""
  best, which = jax.lax.top_k(scores, 2)
  return _hot(which, jax.nn.softmax(best))


def _scored(change):
  """Routes by changed scores."""
  return lambda p, x: _mix(p, x, _top(change(x @ p['router'], p, x)))


def _numbers(use):
  """Multiplies the output of a sound router by a function of its indices."""

  def apply(p, x):
    best, which = jax.lax.top_k(x @ p['router'], 2)
    y = _mix(p, x, _hot(which, jax.nn.softmax(best)))
    return y * use(p, which)

  return apply


def _dead_input(p, x):
  """All hidden units may be zero, and then all scores."""
  h = jax.nn.relu(x @ p['in'])
  return x + _experts(p, x, _top(h @ p['router'])) * 2


def _own_noise(p, x, noise):
  """The noise is an input, one number for each expert: it is not permuted."""
  return _mix(p, x, _top(x @ p['router'] + noise))


def _arrival(p, x):
  """Tokens are sorted by their expert, which orders the sum over tokens."""
  which = jnp.argmax(x @ p['router'], -1)
  order = jnp.argsort(which)
  return jnp.cumsum(x[order], 0)


def _switched(p, x):
  """A branch for each expert: the branches are code."""
  which = jnp.argmax((x @ p['router']).sum(0))
  branches = [lambda x, e=e: jnp.tanh(x @ p['up'][e]) for e in range(E)]
  return jax.lax.switch(which, branches, x) @ p['down'][0]


def _wrong_table(p, x):
  """The index is compared with iota in reverse."""
  which = jnp.argmax(x @ p['router'], -1)
  hot = which[:, None] == jnp.arange(E)[None, ::-1]
  return _mix(p, x, hot.astype(x.dtype))


def _next_expert(p, x):
  """Token b uses expert argmax + 1."""
  which = (jnp.argmax(x @ p['router'], -1) + 1) % E
  return _mix(p, x, jax.nn.one_hot(which, E, dtype=x.dtype))


def _shifted_lookup(p, x):
  """The first expert is replaced by the second, without a sum."""
  which = jnp.maximum(jnp.argmax(x @ p['router'], -1), 1)
  return x + jnp.einsum('bd,bdf->bf', x, p['up'][which]) @ p['down'][0]


def _carried(p, x):
  """The index of a token is used as a number at the next one."""

  def step(last, t):
    best = jnp.argmax(t @ p['router'])
    return best, _mix(p, t[None], jax.nn.one_hot(best, E)[None])[0] * last

  return jax.lax.scan(step, jnp.zeros((), int), x)[1]


def _masked_away(p, x):
  """Tokens with a negative entry have no scores: all are -inf."""
  mask = jnp.where(x[:, :1] > 0, 0.0, -jnp.inf)
  which = jax.lax.top_k(x @ p['router'] + mask, 2)[1]
  return _mix(p, x, jax.nn.one_hot(which, E, dtype=x.dtype).sum(1))


def _cancelled(p, x):
  """The scores of one router minus themselves."""
  scores = x @ p['router'] - (2 * x) @ p['router'] / 2
  which = jax.lax.top_k(scores, 2)[1]
  return _mix(p, x, jax.nn.one_hot(which, E, dtype=x.dtype).sum(1))


def _projected(p, x):
  """The router's input is orthogonal to the difference of two experts."""
  a, b = p['router'][:, 0], p['router'][:, 1]
  d = (a - b)[None]
  h = x - d * (x * d).sum(-1, keepdims=True) / (d * d).sum()
  which = jax.lax.top_k(h @ p['router'], 1)[1]
  return _mix(p, x, jax.nn.one_hot(which, E, dtype=x.dtype).sum(1))


_ARANGE = jnp.arange(E, dtype=jnp.float64)
_MORE = {'in': (W, 3), 'router': (3, E)}
# A bound of the order, and why the experts are pinned.
PINNED = {
  'relu_scores': (
    _scored(lambda s, p, x: jax.nn.relu(s)), _draw(*ROUTED), X, FIXED,
    'ties may be common',
  ),
  'rounded_scores': (
    _scored(lambda s, p, x: jnp.round(s)), _draw(*ROUTED), X, FIXED,
    'ties may be common',
  ),
  'clipped_scores': (
    _scored(lambda s, p, x: jnp.clip(s, -0.2, 0.2)), _draw(*ROUTED), X, FIXED,
    'ties may be common',
  ),
  'scores_times_zero': (
    _scored(lambda s, p, x: s * 0.0), _draw(*ROUTED), X, FIXED,
    'ties may be common',
  ),
  'same_scores': (
    _scored(lambda s, p, x: jnp.broadcast_to(x @ p['one'], s.shape) + 0 * s),
    _draw(*ROUTED, one=(W, 1)), X, FIXED,
    'ties may be common',
  ),
  'cancelled_scores': (
    _cancelled, _draw(*ROUTED), X, FIXED, 'ties may be common'
  ),
  'projected_input': (_projected, _draw(*ROUTED), X, FIXED, ''),
  'absorbed_scores': (
    _scored(lambda s, p, x: s + jnp.where(x[:, :1] > 0, 1e30, 0.0)),
    _draw(*ROUTED), X, FIXED, 'ties may be common',
  ),
  'dead_input': (
    _dead_input, _draw('up', 'down', **_MORE), X, FIXED * f(3),
    'ties may be common',
  ),
  'masked_away': (_masked_away, _draw(*ROUTED), X, FIXED, 'ties may be common'),
  'tie_breaking': (
    _scored(lambda s, p, x: s + 1e-3 * _ARANGE[None]), _draw(*ROUTED), X,
    FIXED, 'a constant that varies along it',
  ),
  'noise_for_each_expert': (
    _own_noise, _draw(*ROUTED), (*X, base.normal(B, E, seed=5)), FIXED,
    'an axis of the input',
  ),
  'index_as_factor': (
    _numbers(lambda p, i: i.sum(1, keepdims=True)), _draw(*ROUTED), X, FIXED,
    'its indices are used as numbers',
  ),
  'index_compared': (
    _numbers(lambda p, i: 1 + (i[:, :1] < 2)), _draw(*ROUTED), X, FIXED,
    'its indices are used as numbers',
  ),
  'one_expert_named': (
    _numbers(lambda p, i: 1 + (i[:, :1] == 1)), _draw(*ROUTED), X, FIXED,
    'its indices are used as numbers',
  ),
  'order_of_indices': (
    _numbers(lambda p, i: 1 + (i[:, :1] < i[:, 1:])), _draw(*ROUTED), X, FIXED,
    'its indices are used as numbers',
  ),
  'sorted_indices': (
    _numbers(lambda p, i: p['up'][jnp.sort(i, -1)[:, 0], 0, :1]),
    _draw(*ROUTED), X, FIXED, 'its indices are used as numbers',
  ),
  'lookup_in_a_longer_table': (
    _numbers(lambda p, i: p['table'][i[:, 0]][:, None]),
    _draw(*ROUTED, table=(E + 1,)), X, FIXED, 'its indices are used as numbers',
  ),
  'lookup_in_a_constant': (
    _numbers(lambda p, i: _ARANGE[i[:, 0]][:, None]), _draw(*ROUTED), X, FIXED,
    'a constant that varies along it',
  ),
  'reversed_iota': (_wrong_table, _draw(*ROUTED), X, FIXED, ''),
  'next_expert': (_next_expert, _draw(*ROUTED), X, FIXED, ''),
  'shifted_lookup': (_shifted_lookup, _draw(*ROUTED), X, f(F), ''),
  'carried_index': (_carried, _draw(*ROUTED), X, FIXED, ''),
  'tokens_sorted_by_expert': (_arrival, _draw('router'), X, 1, ''),
  'branch_for_each_expert': (_switched, _draw(*ROUTED), X, f(F), ''),
  'returned_index': (
    lambda p, x: (switch(p, x), jnp.argmax(x @ p['router'], -1)),
    _draw(*ROUTED), X, FIXED, 'its indices are used as numbers',
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', PINNED)
def test_experts_stay_pinned(name):
  apply, params, inputs, most, reason = PINNED[name]
  apply = base.lenient(apply)
  symmetry = align.find_symmetry(apply, params, *inputs)
  print(align.explain(symmetry))
  assert 10**symmetry.log10_order < most * (1 + 1e-9)
  columns = [f for s in symmetry.plan('router')[-1] for f in s]
  assert all(factor.pinned for factor in columns)
  assert reason in align.explain(symmetry)
  report = align.check(symmetry, apply, params, *inputs, key=jax.random.key(1))
  assert report.error < 1e-12
