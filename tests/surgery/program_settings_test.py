"""Layer programs on float64 and bfloat16 leaves, as users run JAX.

``tests/defaults_test.py`` runs this file a second time with JAX's defaults.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wsl import align, stats, stitch, surgery

BLOCKS = r'block_(\d+)/'
DRAW = np.random.default_rng(0).normal
PARAMS = {
  f'block_{i}': {'w': DRAW(size=(3, 3)), 'norm': DRAW(size=3)} for i in range(4)
}


def test_the_full_rank_is_the_network_in_float64():
  program = surgery.recursive(4, loops=2, init='average', rank=3, untied='norm')
  new = surgery.apply_program(PARAMS, program, blocks=BLOCKS)
  for x, y in zip(*map(jax.tree.leaves, (new, PARAMS)), strict=True):
    assert x.dtype == 'float64'
    np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)


def test_means_and_residuals_of_bfloat16_round_once():
  narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS)
  program = surgery.recursive(4, loops=2, init='average', rank=1)
  new = surgery.apply_program(narrow, program, blocks=BLOCKS)
  own = [np.asarray(narrow[f'block_{i}']['w'], np.float64) for i in (0, 2)]
  mean = np.asarray(
    jnp.asarray((own[0] + own[1]) / 2, jnp.bfloat16), np.float64
  )
  u, s, vt = np.linalg.svd(own[0] - mean)
  wanted = mean + s[0] * np.outer(u[:, 0], vt[0])
  found = new['block_0']['w']
  assert found.dtype == jnp.bfloat16
  bits = float(jnp.finfo(jnp.bfloat16).eps)
  np.testing.assert_allclose(
    np.asarray(found, np.float64), wanted, rtol=bits, atol=bits
  )


def mlp(p, x):
  return jnp.tanh(x @ p['a']) @ p['b']


def test_wider_float64_networks_compute_the_same():
  params = {'a': DRAW(size=(2, 3)), 'b': DRAW(size=(3, 2))}
  x = np.ones((4, 2))
  shapes = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (params, x))
  new = surgery.widen(
    params,
    {'a:1': 5},
    symmetry=align.find_symmetry(mlp, *shapes),
    views=stats.matrix_views(mlp, *shapes),
  )
  by_hand = lambda p: np.tanh(x @ np.asarray(p['a'])) @ np.asarray(p['b'])
  assert new['b'].dtype == 'float64'
  np.testing.assert_allclose(by_hand(new), by_hand(params), rtol=1e-12)


def same(p, h):
  return h


def block(p, h):
  return h + h @ p.astype(h.dtype)


def loss_fn(outputs, batch):
  return jnp.mean(outputs**2)


def test_paths_and_gates_of_bfloat16_weights_run_in_float32():
  blocks = jnp.asarray(DRAW(size=(3, 2, 2)), jnp.bfloat16)
  model = stitch.Segmented(
    {'embed': {}, 'blocks': blocks, 'head': {}}, same, block, same
  )
  x = jnp.ones((1, 2), jnp.float32)
  path = surgery.follow(model, jnp.arange(3), x)
  gated = surgery.gated_apply(model, jnp.ones(3, jnp.float32), x)
  shallow = surgery.collapse(model, groups=[(i, i + 1) for i in range(3)])
  wanted = stitch.apply(model, x)
  for found in (path, gated, stitch.apply(shallow, x)):
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
  gates = surgery.block_gates(
    model, loss_fn, [(x,)], optimizer=optax.sgd(0.1), keep=0.5
  )
  assert gates.shape == (3,)
  assert (gates < 1).any()
