"""The mixture of experts against one expert and one token at a time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, models

E, WIDTH, HIDDEN, N = 4, 3, 5, 6


def layer(**more):
  return models.MoE(models.SwiGLU, HIDDEN, E, **more)


@pytest.fixture(scope='module')
def drawn(draw_params):
  x = jax.random.normal(jax.random.key(1), (2, 3, WIDTH), jnp.float64)
  return draw_params(layer(), x), x


def expert(params, e, x):
  """One SwiGLU in numpy."""
  gate, up, down = (
    np.asarray(params['experts'][n]['kernel'][e])
    for n in ('gate', 'up', 'down')
  )
  h = x @ gate
  return (h / (1 + np.exp(-h)) * (x @ up)) @ down


def oracle(params, x, *, top_k, normalise=True, slots=None):
  """Routes token by token; an expert with no free slot leaves a choice out."""
  rows = np.asarray(x).reshape(-1, WIDTH)
  scores = rows @ np.asarray(params['router']['kernel'])
  y, used = np.zeros_like(rows), [0] * E
  for rank in range(top_k):
    for n, row in enumerate(rows):
      best = np.argsort(-scores[n])[:top_k]
      total = np.exp(scores[n][best] if normalise else scores[n]).sum()
      e = best[rank]
      if slots is None or used[e] < slots:
        used[e] += 1
        y[n] += np.exp(scores[n, e]) / total * expert(params, e, row)
  return y.reshape(x.shape), used


@pytest.mark.parametrize(('top_k', 'normalise'), [(1, False), (2, True)])
def test_each_token_has_its_best_experts(drawn, top_k, normalise):
  params, x = drawn
  wanted, _ = oracle(params, x, top_k=top_k, normalise=normalise)
  for capacity in (None, E / top_k):
    module = layer(top_k=top_k, normalise=normalise, capacity=capacity)
    y = jax.jit(module.apply)({'params': params}, x)
    np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-14)


def test_an_expert_computes_no_more_than_its_capacity(drawn):
  params, x = drawn
  slots = math.ceil(0.7 * 2 * N / E)
  wanted, used = oracle(params, x, top_k=2, slots=slots)
  assert max(used) == slots
  assert sum(used) < 2 * N  # some choices are dropped
  apply = lambda p: layer(capacity=0.7).apply({'params': p}, x)
  total = lambda p: (jnp.sum(apply(p)), apply(p))
  grads, y = jax.jit(jax.grad(total, has_aux=True))(params)
  np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-14)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_balance_is_the_definition_and_least_for_even_use():
  s = jax.random.normal(jax.random.key(0), (5, 3))
  p = np.exp(np.asarray(s))
  p /= p.sum(-1, keepdims=True)
  share = np.bincount(np.argsort(-s, -1)[:, :2].ravel(), minlength=3) / 10
  balance = jax.jit(models.load_balance, static_argnames='top_k')
  found = balance(s, top_k=2)
  np.testing.assert_allclose(found, 3 * share @ p.mean(0), rtol=1e-12)
  # Every expert is chosen equally often, with equal probability.
  rolled = jnp.stack([jnp.roll(jnp.arange(3.0), i) for i in range(3)])
  np.testing.assert_allclose(balance(rolled, top_k=1), 1, rtol=1e-12)


def test_experts_and_their_units_are_permuted(drawn):
  params, x = drawn
  symmetry = align.find_symmetry(
    lambda p, x: layer().apply({'params': p}, x), params, x
  )
  orders = math.factorial(E) * math.factorial(HIDDEN) ** E
  np.testing.assert_allclose(symmetry.log10_order, math.log10(orders))


def test_a_language_model_has_experts_in_its_blocks(draw_params):
  module = models.LanguageModel(
    vocabulary=5, width=4, heads=2, hidden=3, depth=1, experts=3, top_k=1
  )
  x = np.zeros((1, 2), np.int32)
  params = draw_params(module, x)

  @jax.jit
  def both(params):
    y, logits = models.router_logits(module, params, x)
    parts = models.segments(module, params)
    h = parts.embed(parts.params['embed'], x)
    block = jax.tree.map(lambda p: p[0], parts.params['blocks'])
    return y, logits, parts.head(parts.params['head'], parts.block(block, h))

  y, logits, cut = both(params)
  assert {n: s.shape for n, s in logits.items()} == {'block_0/mlp': (2, 3)}
  np.testing.assert_allclose(cut, y, rtol=1e-12)


def test_a_vision_transformer_has_experts_in_its_blocks():
  module = models.ViT(outputs=2, width=4, heads=2, depth=2, experts=3, patch=2)
  x = jax.ShapeDtypeStruct((1, 2, 4, 1), jnp.float32)
  params = jax.eval_shape(module.init, jax.random.key(0), x)['params']
  _, logits = jax.eval_shape(
    lambda p, x: models.router_logits(module, p, x), params, x
  )
  wanted = {f'block_{i}/mlp': (2, 3) for i in range(2)}
  assert {n: s.shape for n, s in logits.items()} == wanted
  parts = jax.eval_shape(lambda p: models.segments(module, p).params, params)
  up = parts['blocks']['mlp']['experts']['up']['kernel']
  assert up.shape == (2, 3, 4, 8)


def test_bad_arguments_are_named(drawn):
  params, x = drawn
  for k in (0, 5, 1.0, True):
    with pytest.raises(ValueError, match=rf'top_k={k!r}: .* <= 4 experts'):
      jax.eval_shape(layer(top_k=k).apply, {'params': params}, x)
  dense = models.MLP(widths=(2,), outputs=1)
  with pytest.raises(ValueError, match='router_logits: MLP has no MoE layer'):
    models.router_logits(dense, dense.init(jax.random.key(0), x)['params'], x)
