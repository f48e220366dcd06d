"""Experts in float32 and bfloat16, as users run JAX.

``tests/defaults_test.py`` runs this file a second time with JAX's defaults.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, models, surgery

E, WIDTH, HIDDEN = 4, 3, 8
RNG = np.random.default_rng(0)
UP = (WIDTH, HIDDEN)
SHAPES = {'down': UP[::-1], 'gate': UP, 'up': UP}
EXPERTS = {
  n: {'kernel': RNG.normal(size=(E, *s)).astype(np.float32)}
  for n, s in SHAPES.items()
}
ROUTER = RNG.normal(size=(WIDTH, E)).astype(np.float32)
X = RNG.normal(size=(6, WIDTH)).astype(np.float32)


def cast(params, dtype):
  return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)


def oracle(params, router, x):
  """The two best of four SwiGLU, in float64."""
  params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
  s = x.astype(np.float64) @ np.asarray(router, np.float64)
  y = np.zeros_like(x, np.float64)
  for n, row in enumerate(x.astype(np.float64)):
    best = np.argsort(-s[n])[:2]
    gates = np.exp(s[n][best]) / np.exp(s[n][best]).sum()
    for g, e in zip(gates, best):
      gate, up, down = (params[k]['kernel'][e] for k in ('gate', 'up', 'down'))
      h = row @ gate
      y[n] += g * ((h / (1 + np.exp(-h)) * (row @ up)) @ down)
  return y


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_experts_compute_and_merge_in_float32(dtype):
  experts, router = cast(EXPERTS, dtype), jnp.asarray(ROUTER, dtype)
  layer = {'experts': experts, 'router': {'kernel': router}}
  module = models.MoE(models.SwiGLU, HIDDEN, E, capacity=2.0)
  y = jax.jit(module.apply)({'params': layer}, X)
  assert y.dtype == jnp.float32
  np.testing.assert_allclose(y, oracle(experts, router, X), atol=3e-5)
  groups = surgery.ExpertGroups(np.asarray([0, 1, 0, 1]), np.asarray([0, 1]))
  usage = np.asarray([0.4, 0.3, 0.2, 0.1])
  merged = surgery.merge_experts(experts, groups, usage=usage)
  up = np.asarray(experts['up']['kernel'], np.float64)
  wanted = np.stack([(2 * up[0] + up[2]) / 3, (3 * up[1] + up[3]) / 4])
  found = merged['up']['kernel']
  assert found.dtype == dtype
  spacing = 2 ** -(8 if dtype == jnp.bfloat16 else 22)
  np.testing.assert_allclose(
    np.asarray(found, np.float64), wanted, rtol=spacing, atol=1e-7
  )


def test_a_perceptron_is_split_and_routing_is_measured():
  mlp = jax.tree.map(lambda x: jnp.asarray(x[0]), EXPERTS)
  one = lambda p, x: models.SwiGLU(p['up']['kernel'].shape[-1]).apply(
    {'params': p}, x
  )
  symmetry = align.find_symmetry(one, mlp, X)
  features = surgery.unit_features(mlp, symmetry=symmetry, leaves='gate')
  assert features.shape == (HIDDEN, WIDTH)
  index = surgery.balanced_clusters(features, clusters=2, key=jax.random.key(0))
  experts = surgery.split_units(mlp, index, symmetry=symmetry)
  y = surgery.apply_experts(one, experts, jnp.ones((6, 2)), jnp.asarray(X))
  np.testing.assert_allclose(y, one(mlp, X), atol=1e-5)
  found = surgery.routing(lambda p, x: {'': x @ p}, ROUTER, [X])['']
  logits = X.astype(np.float64) @ ROUTER
  np.testing.assert_allclose(found.gram, logits.T @ logits / 6, rtol=1e-5)
  assert found.gram.dtype == jnp.float32
  copies = surgery.upcycle(
    mlp, experts=2, width=WIDTH, key=jax.random.key(0), mlps='', noise=0.1
  )
  assert copies['experts']['up']['kernel'].dtype == jnp.float32
