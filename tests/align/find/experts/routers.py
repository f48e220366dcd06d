"""Routers whose experts are freed: how scores select and are combined."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from tests.align.find.experts import moe
from tests.align.find.zoo import base


def mixtral(p, x):
  """The softmax of the two best logits."""
  best, which = jax.lax.top_k(x @ p['router'], 2)
  return moe.mix(p, x, moe.hot(which, jax.nn.softmax(best)))


def renormalised(p, x):
  """The softmax of all logits, cut and renormalised."""
  best, which = jax.lax.top_k(jax.nn.softmax(x @ p['router']), 2)
  return moe.mix(p, x, moe.hot(which, best / best.sum(-1, keepdims=True)))


def switch(p, x):
  """The single best expert, scaled by its probability."""
  probabilities = jax.nn.softmax(x @ p['router'])
  hot = jax.nn.one_hot(jnp.argmax(probabilities, -1), moe.E, dtype=x.dtype)
  return moe.mix(p, x, probabilities * hot)


def threshold(p, x):
  """All experts whose score is at least the second largest."""
  scores = x @ p['router']
  kth = jnp.sort(scores, -1)[:, -2:-1]
  return moe.mix(
    p, x, jax.nn.softmax(jnp.where(scores >= kth, scores, -jnp.inf))
  )


def top_k_threshold(p, x):
  """As ``threshold``, by the values of ``top_k`` alone; ties do not matter."""
  scores = jax.nn.relu(x @ p['router'])
  kth = jax.lax.top_k(scores, 2)[0][:, -1:]
  return moe.mix(p, x, scores * (scores >= kth))


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
  hot = jax.nn.one_hot(which, moe.B, dtype=x.dtype)  # [e, k, b]
  h = jnp.tanh(jnp.einsum('ekb,bd,edf->ekf', hot, x, p['up']))
  return x + jnp.einsum('ek,ekb,ekf,efd->bd', gates, hot, h, p['down'])


def deepseek(p, x):
  """Sigmoid scores; a bias for balance selects, but does not weight."""
  scores = jax.nn.sigmoid(x @ p['router'])
  _, which = jax.lax.top_k(scores + p['bias'][None], 2)
  gates = jnp.take_along_axis(scores, which, axis=-1)
  return moe.mix(p, x, moe.hot(which, gates / gates.sum(-1, keepdims=True)))


def softplus(p, x):
  """Scores behind a softplus, which is strictly increasing."""
  return moe.mix(p, x, moe.top(jax.nn.softplus(x @ p['router'])))


def log_sigmoid(p, x):
  """Scores that are logarithms of probabilities."""
  return moe.mix(p, x, moe.top(jax.nn.log_sigmoid(x @ p['router'])))


def root_softplus(p, x):
  """The root of a softplus selects and weights."""
  scores = jnp.sqrt(jax.nn.softplus(x @ p['router']))
  best, which = jax.lax.top_k(scores, 2)
  return moe.mix(p, x, moe.hot(which, best / best.sum(-1, keepdims=True)))


def argsort(p, x):
  """The last two experts of a sort, weighted by ``take_along_axis``."""
  scores = x @ p['router']
  which = jnp.argsort(scores, axis=-1)[:, ::-1][:, :2]
  gates = jax.nn.softmax(jnp.take_along_axis(scores, which, axis=-1))
  return moe.mix(p, x, moe.hot(which, gates))


def argsort_descending(p, x):
  scores = x @ p['router']
  which = jnp.argsort(-scores, axis=-1)[:, :2]
  gates = jax.nn.sigmoid(jnp.take_along_axis(scores, which, axis=-1))
  return moe.mix(p, x, moe.hot(which, gates))


def sorted_pairs(p, x):
  """Sorts payloads by the scores."""
  scores = x @ p['router']
  bias = jnp.broadcast_to(p['bias'][None], scores.shape)
  _, moved = jax.lax.sort((scores, bias), num_keys=1)
  best, which = jax.lax.top_k(scores, 1)
  return moe.mix(p, x, moe.hot(which, best)) * moved[:, -1:]


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
  rows = jnp.arange(moe.B)[:, None]
  gates = jnp.zeros((moe.B, moe.E)).at[rows, which].set(jax.nn.softmax(best))
  return moe.mix(p, x, gates)


def added(p, x):
  """Adds the gates, and reads scores at pairs of indices."""
  scores = jax.nn.softmax(x @ p['router'])
  which = jax.lax.top_k(scores, 2)[1]
  rows = jnp.arange(moe.B)[:, None]
  gates = jnp.zeros((moe.B, moe.E)).at[rows, which].add(scores[rows, which])
  return moe.mix(p, x, gates)


def along(p, x):
  """Writes the gates with ``put_along_axis``."""
  best, which = jax.lax.top_k(x @ p['router'], 2)
  gates = jnp.put_along_axis(
    jnp.zeros((moe.B, moe.E)),
    which,
    jax.nn.sigmoid(best),
    axis=-1,
    inplace=False,
  )
  return moe.mix(p, x, gates)


def segments(p, x):
  """Sums the tokens of each expert, as a task embedding."""
  which = jnp.argmax(x @ p['router'], -1)
  sums = jax.ops.segment_sum(x, which, num_segments=moe.E)  # [e, d]
  h = jax.nn.silu(jnp.einsum('ed,edf->ef', sums, p['up']))
  return jnp.einsum('ef,efd->ed', h, p['down'])[which]


def capacity(p, x):
  """Switch with capacity: tokens of an expert are kept in their order."""
  scores = jax.nn.softmax(x @ p['router'])
  hot = jax.nn.one_hot(jnp.argmax(scores, -1), moe.E, dtype=jnp.int32)
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
  first = jax.nn.one_hot(which[:, 0], moe.E, dtype=x.dtype)
  second = jax.nn.one_hot(which[:, 1], moe.E, dtype=x.dtype)
  taken = jnp.cumsum(first, 0)[-1:]
  place = jnp.cumsum(second, 0) + taken
  keep = second * (place < 5)
  gates = scores * (first + keep)
  return moe.mix(p, x, gates / gates.sum(-1, keepdims=True))


def best(scores):
  """The one-hot encoding of the best expert."""
  return jax.nn.one_hot(jnp.argmax(scores, -1), moe.E, dtype=scores.dtype)


def masked_second(p, x):
  """The second expert is the best one after the first is masked."""
  scores = jax.nn.softmax(x @ p['router'])
  first = best(scores)
  second = best(jnp.where(first > 0, -jnp.inf, scores))
  return moe.mix(p, x, scores * (first + second))


def zeroed_second(p, x):
  """As ``masked_second``, by a product with zeros and ones, as in GShard."""
  scores = jax.nn.softmax(x @ p['router'])
  first = best(scores)
  second = best(scores * (1 - first))
  return moe.mix(p, x, scores * (first + second))


def excluded_second(p, x):
  """As ``masked_second``, with a boolean mask that is negated."""
  scores = x @ p['router']
  first = jnp.arange(moe.E)[None] == jnp.argmax(scores, -1)[:, None]
  second = best(jnp.where(~first, scores, -jnp.inf))
  return moe.mix(p, x, jax.nn.sigmoid(scores) * (first + second))


def load_balance(p, x):
  """Also returns the auxiliary loss: shares times mean probabilities."""
  scores = jax.nn.softmax(x @ p['router'])
  hot = jax.nn.one_hot(jnp.argmax(scores, -1), moe.E, dtype=x.dtype)
  loss = moe.E * jnp.sum(hot.mean(0) * scores.mean(0))
  return moe.mix(p, x, scores * hot), loss


def jittered(p, x, noise):
  """Multiplies the router's input by noise, as Switch does."""
  best, which = jax.lax.top_k((x * noise) @ p['router'], 2)
  return moe.mix(p, x, moe.hot(which, jax.nn.softmax(best)))


def noisy(p, x, noise):
  """Noisy gating with one draw for a token, scaled by a learned deviation."""
  spread = jax.nn.softplus(x @ p['noise'])
  scores = x @ p['router'] + noise * spread
  best, which = jax.lax.top_k(scores, 2)
  return moe.mix(p, x, moe.hot(which, jax.nn.softmax(best)))


def normed(p, x):
  """RMSNorm after a residual block with a ReLU, then a router without bias."""
  x = x + jax.nn.relu(x @ p['in']) @ p['out']
  h = base.rms_norm(x, p['scale'])
  best, which = jax.lax.top_k(h @ p['router'], 2)
  return x + moe.experts(p, h, moe.hot(which, jax.nn.softmax(best)))


def layer_normed(p, x):
  """Two layers: the second router reads what the first experts write."""
  for layer in p['layers']:
    h = base.layer_norm(x, layer['scale'], layer['shift'])
    best, which = jax.lax.top_k(h @ layer['router'], 2)
    x = x + moe.experts(layer, h, moe.hot(which, jax.nn.softmax(best)))
  return x


def scanned(p, x):
  """Layers of experts in a scan; each has its own router."""

  def step(x, layer):
    h = base.rms_norm(x, layer['scale'])
    best, which = jax.lax.top_k(h @ layer['router'], 2)
    return x + moe.experts(layer, h, moe.hot(which, jax.nn.softmax(best))), None

  return jax.lax.scan(step, x, p['layers'])[0]


def shared_lookup(p, x):
  """Two routers over the same experts, compared with each other."""
  a = jnp.argmax(x @ p['router'], -1)
  b = jnp.argmax(x @ p['other'], -1)
  gates = jax.nn.one_hot(a, moe.E, dtype=x.dtype)
  gates = gates + jax.nn.one_hot(jnp.where(x[:, 0] > 0, a, b), moe.E)
  return moe.mix(p, x, gates) * jnp.where(a == b, 2.0, 1.0)[:, None]


def scanned_experts(p, x):
  """A scan over experts that adds up their outputs, within another jit."""
  gates = moe.top(x @ p['router'])

  def add(total, expert):
    up, down, gate = expert
    return total + gate[:, None] * (jax.nn.silu(x @ up) @ down), None

  total = jax.jit(lambda *xs: jax.lax.scan(add, x, xs)[0])
  return total(p['up'], p['down'], gates.T)


def scanned_twice(p, x):
  """Layers in a scan, each with a scan over its experts."""

  def layer(h, p):
    gates = moe.top(base.rms_norm(h, p['scale']) @ p['router'])

    def add(total, expert):
      up, down, gate = expert
      return total + gate[:, None] * (jnp.tanh(h @ up) @ down), None

    zero = jnp.zeros_like(h)
    out = jax.lax.scan(add, zero, (p['up'], p['down'], gates.T))[0]
    return h + out, None

  return jax.lax.scan(layer, x, p['layers'])[0]


def cosine(p, x):
  """Cosines of tokens and columns: pinned by tracing, freed by a test."""
  unit = lambda v, axis: v / jnp.linalg.norm(v, axis=axis, keepdims=True)
  scores = 7.0 * unit(x, -1) @ unit(p['router'], 0)
  return moe.mix(p, x, moe.top(scores))


def group_limited(p, x):
  """DeepSeek's routing: the best group of experts, then experts in it."""
  scores = jax.nn.sigmoid(x @ p['router'])
  groups = jax.lax.top_k(scores.reshape(-1, 2, 2), 2)[0].sum(-1)
  kept = jax.nn.one_hot(jnp.argmax(groups, -1), 2, dtype=x.dtype)
  mask = jnp.repeat(kept, 2, axis=-1) > 0
  best, which = jax.lax.top_k(jnp.where(mask, scores, -jnp.inf), 2)
  return moe.mix(p, x, moe.hot(which, best / best.sum(-1, keepdims=True)))


def soft_prompts(p, x):
  """Free queries choose experts: their order is free as well."""
  best, which = jax.lax.top_k(p['queries'] @ p['router'], 2)
  gates = moe.hot(which, jax.nn.softmax(best))
  h = jnp.tanh(jnp.einsum('qd,edf->qef', p['queries'], p['up']))
  y = jnp.einsum('qe,qef,efd->qd', gates, h, p['down'])
  return x @ (y.T @ y)


def looped(p, x):
  """Adds the experts of each rank in a loop."""
  best, which = jax.lax.top_k(x @ p['router'], 2)
  gates = jax.nn.softmax(best)

  def add(k, total):
    hot = jax.nn.one_hot(which[:, k], moe.E, dtype=x.dtype)
    return total + moe.experts(p, x, hot * gates[:, k][:, None])

  return jax.lax.fori_loop(0, 2, add, jnp.zeros_like(x))


def differentiated(p, x):
  """The gradient of a function with experts that is computed again."""
  apply = jax.checkpoint(lambda x: mixtral(p, x))
  return jax.grad(lambda x: apply(x).sum())(x)


def branched(p, x):
  """Experts in one of two branches."""
  return jax.lax.cond(x.sum() > 0, mixtral, lambda p, x: x, p, x)


class Switch(nn.Module):
  """A Flax layer: capacity by order of arrival, experts by ``nn.vmap``."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x + nn.Dense(moe.W)(nn.relu(nn.Dense(3)(x)))
    h = nn.LayerNorm()(x)
    scores = nn.softmax(nn.Dense(moe.E, use_bias=False)(h))
    gates, which = jax.lax.top_k(scores, 2)
    hot = jax.nn.one_hot(which, moe.E)  # [b, k, e]
    place = jnp.cumsum(hot.reshape(-1, moe.E), 0).reshape(hot.shape) * hot
    slot = jax.nn.one_hot((place - 1).astype(int), 4)  # [b, k, e, c]
    dispatch = hot[..., None] * (place <= 4)[..., None] * slot
    combine = (gates[..., None, None] * dispatch).sum(1)
    inputs = jnp.einsum('bkec,bd->ecd', dispatch, h)
    experts = nn.vmap(
      nn.Sequential, variable_axes={'params': 0}, split_rngs={'params': True}
    )([nn.Dense(moe.F), nn.gelu, nn.Dense(moe.W)])
    return x + jnp.einsum('bec,ecd->bd', combine, experts(inputs))
