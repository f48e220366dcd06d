"""Eigenvalues, trace and density of Hessians that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.operations import inputs
from wsl import landscape, mesh
from wsl.landscape._hessian import product, top

N = 7
KEY = jax.random.key(3)
PARAMS = {'a': jnp.zeros((2, 2)), 'b': jnp.zeros(3), 'n': jnp.arange(3)}


def quadratic(params, matrices):
  """The mean of w' M w / 2 over a batch of matrices: the Hessian is theirs."""
  w = jnp.concatenate([params['a'].reshape(-1), params['b']])
  found = jnp.einsum('i,bij,j->b', w, matrices, w, precision='highest')
  return jnp.mean(found) / 2


def symmetric(*eigenvalues, seed=0):
  draw = np.random.default_rng(seed).normal(size=(N, N))
  q, _ = np.linalg.qr(draw)
  return q @ np.diag(eigenvalues) @ q.T


# Batches of 2 and of 1 matrices whose mean over 3 examples is the Hessian.
def batches_of(hessian):
  noise = np.random.default_rng(1).normal(size=(3, N, N))
  noise = noise + noise.transpose(0, 2, 1)
  found = hessian + noise - noise.mean(0)
  return [jnp.asarray(found[:2]), jnp.asarray(found[2:])]


def flat(vectors):
  parts = (vectors['a'], vectors['b'])
  return np.concatenate([np.reshape(x, (len(x), -1)) for x in parts], 1)


@pytest.mark.parametrize(
  'eigenvalues',
  [
    (5, -6, 3.5, 1, 0.5, -1, -2),
    (2, 2, 2, 0, 0, 0, -1),  # a Krylov space of three dimensions
    (0, 0, 0, 0, 0, 0, 0),
  ],
)
def test_eigenpairs_of_quadratics_are_exact(eigenvalues):
  hessian = symmetric(*eigenvalues)
  found = landscape.hessian_top(
    quadratic, PARAMS, batches_of(hessian), count=3, key=KEY
  )
  wanted = sorted(eigenvalues, reverse=True)[:3]
  np.testing.assert_allclose(found.values, wanted, atol=1e-12)
  v = flat(found.vectors)
  np.testing.assert_allclose(v @ v.T, np.eye(3), atol=1e-12)
  np.testing.assert_allclose(v @ hessian, np.diag(wanted) @ v, atol=1e-12)
  assert found.vectors['n'] is None


def test_few_steps_bound_their_error():
  eigenvalues = np.array([5, -6, 3.5, 1, 0.5, -1, -2])
  hessian = symmetric(*eigenvalues)
  found = landscape.hessian_top(
    quadratic, PARAMS, batches_of(hessian), count=2, steps=4,
    order='magnitude', key=KEY,
  )  # fmt: skip
  assert found.values[0] < -5  # the largest magnitude first
  v = flat(found.vectors)
  residual = np.linalg.norm(v @ hessian - found.values[:, None] * v, axis=1)
  np.testing.assert_allclose(found.errors, residual, atol=1e-12)
  assert residual[0] > 1e-6
  nearest = np.abs(eigenvalues - np.asarray(found.values)[:, None]).min(1)
  assert (nearest <= residual).all()


def test_hutchinson_is_unbiased_and_knows_its_error():
  hessian = symmetric(5, -6, 3.5, 1, 0.5, -1, -2)
  found = landscape.hessian_trace(
    quadratic, PARAMS, batches_of(hessian), probes=500, key=KEY
  )
  assert abs(found.value - 1.0) < 3 * found.error
  off = hessian - np.diag(np.diag(hessian))
  deviation = np.sqrt(2 * (off**2).sum() / 500)
  np.testing.assert_allclose(found.error, deviation, rtol=0.1)
  # The Hessian is diagonal: each probe is exact.
  exact = landscape.hessian_trace(
    quadratic, PARAMS, batches_of(np.diag(np.arange(7.0))), probes=500, key=KEY
  )
  np.testing.assert_allclose(exact.samples, 21.0, atol=1e-12)
  assert exact.error < 1e-12


def test_deflation_takes_the_variance_of_the_leading_part():
  run = lambda *eigenvalues: landscape.hessian_trace(
    quadratic, PARAMS, batches_of(symmetric(*eigenvalues)), probes=8,
    deflate=5, key=KEY,
  )  # fmt: skip
  found = run(100, -90, 80, 0.1, 0.2, 0.3, 0.4)
  assert abs(found.value - 91) < 1  # Hutchinson's error would be about 60
  assert 0 < found.error < 1
  found = run(100, -90, 80, 0, 0, 0, 0)
  np.testing.assert_allclose(found.samples, 90, atol=1e-11)


def test_moments_of_the_density():
  eigenvalues = np.array([5, -6, 3.5, 1, 0.5, -1, -2])
  found = landscape.hessian_density(
    quadratic, PARAMS, batches_of(symmetric(*eigenvalues)), probes=300, key=KEY
  )
  np.testing.assert_allclose(found.weights.sum(), 1, atol=1e-12)
  for power in (1, 2):
    moment = (found.weights * found.nodes**power).sum()
    wanted = (eigenvalues**power).mean()
    np.testing.assert_allclose(moment, wanted, atol=1.0)
  # All eigenvalues of a small Hessian are nodes of every probe.
  nodes = np.sort(found.nodes, 1)
  wanted = np.broadcast_to(np.sort(eigenvalues), nodes.shape)
  np.testing.assert_allclose(nodes, wanted, atol=1e-9)


def test_a_population_under_jit_and_vmap():
  # L = x^4 + y^2: the Hessian is diag(12 x^2, 2).
  loss = lambda p, batch: jnp.mean(batch) * (p['x'] ** 4 + p['y'] ** 2)
  find = lambda p: landscape.hessian_top(loss, p, [jnp.ones(2)], key=KEY)
  x = np.array([1.0, 0.1, 2.0])
  many = {'x': jnp.asarray(x), 'y': jnp.zeros(3)}
  found = jax.jit(jax.vmap(find))(many)
  np.testing.assert_allclose(found.values[:, 0], [12, 2, 48], rtol=1e-12)
  np.testing.assert_allclose(
    np.abs(found.vectors['x'][:, 0]), [1, 0, 1], atol=1e-12
  )


def test_half_precision_and_a_choice_of_leaves():
  half = {'a': PARAMS['a'].astype(jnp.bfloat16), 'b': PARAMS['b']}
  hessian = np.diag([1.0, 2, 3, 4, 5, 6, 7])
  run = lambda leaves: landscape.hessian_top(
    quadratic, half, [jnp.asarray(hessian, jnp.float32)[None]],
    leaves=leaves, key=KEY,
  )  # fmt: skip
  with jax.numpy_dtype_promotion('standard'):
    found = run('^a$')
  assert found.values.dtype == 'float32'
  np.testing.assert_allclose(found.values, [4.0], rtol=1e-6)
  assert found.vectors['b'] is None


@pytest.mark.needs_devices(8)
def test_nothing_is_gathered_on_a_mesh():
  placed = mesh.make('data:4,model:2')
  x = np.random.default_rng(0).normal(size=(16, 8))
  params = mesh.shard({'w': jnp.ones((8, 2))}, jax.P('model'), placed)
  batch = mesh.shard(jnp.asarray(x), jax.P('data'), placed)
  square = lambda p, x: jnp.mean(jnp.square(inputs.dense(p['w'], x)))
  found = landscape.hessian_top(square, params, [batch], steps=16, key=KEY)
  # The Hessian is X'X / 16 for each of the two columns.
  wanted = np.linalg.eigvalsh(x.T @ x / 16)[-1]
  np.testing.assert_allclose(found.values, [wanted], rtol=1e-12)
  assert found.vectors['w'].sharding.spec == jax.P(None, 'model')
  given, chosen = product.problem('', square, params, [batch], None, KEY)
  text = top._top.lower(given, chosen, 16, 1, 'value').compile().as_text()
  assert 'all-reduce' in text
  assert 'all-gather' not in text
  assert 'f64[16,4,2]' in text  # the basis on each device
  assert 'f64[16,8,2]' not in text


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'count': 0}, 'count=0, expected at least 1 and at most steps=30'),
    ({'count': 8}, 'count=8, but the chosen leaves have 7 parameters'),
    ({'steps': 2.5}, 'steps=2.5 is a float, expected an integer'),
    ({'order': 'size'}, "order='size' is none of value, magnitude"),
    ({'leaves': '^n$'}, 'leaves= chooses no leaf of floats'),
    ({'leaves': '^c$'}, "no leaf matches '\\^c\\$'"),
  ],
)
def test_wrong_arguments_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    landscape.hessian_top(
      quadratic, PARAMS, batches_of(np.eye(N)), key=KEY, **options
    )


def test_wrong_losses_and_batches_are_named():
  vector = lambda p, batch: p['b']
  losses = {
    r'float64\[3\]': vector,
    'tuple': lambda p, batch: (jnp.sum(p['b']), batch),
    r'int64\[\]': lambda p, batch: jnp.sum(p['n']),
  }
  for what, loss in losses.items():
    with pytest.raises(ValueError, match=f'loss_fn returns {what}, expected'):
      landscape.hessian_trace(loss, PARAMS, [jnp.ones(1)], key=KEY)
  with pytest.raises(ValueError, match='hessian_trace: no batches given'):
    landscape.hessian_trace(vector, PARAMS, [], key=KEY)
  with pytest.raises(ValueError, match="leaf 'b' is complex"):
    landscape.hessian_density(
      vector, {'b': jnp.ones(2, complex)}, [jnp.ones(1)], key=KEY
    )
