"""Values that hold under JAX's defaults too, with tolerances of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import scale, stats, stitch, tree

CLOSE = {'rtol': 1e-4, 'atol': 1e-4}
DTYPES = [np.float16, np.float32, np.float64]


def draw(*shape, seed=0, dtype=np.float32):
  return np.random.RandomState(seed).randn(*shape).astype(dtype)


@pytest.mark.parametrize('dtype', DTYPES)
def test_maps_of_dependent_features_have_the_least_norm(dtype):
  x, y = draw(40, 4, dtype=dtype), draw(40, 3, seed=1, dtype=dtype)
  x = np.concatenate([x, x[:, :2]], 1)
  a, b = (np.asarray(v, float) - np.mean(v, 0, dtype=float) for v in (x, y))
  expected = np.linalg.pinv(a, 1e-3) @ b
  for adapter in (
    stitch.fit(x, y),
    stitch.translate(x, y, kind='affine'),
    jax.jit(stitch.fit)(x, y),
  ):
    np.testing.assert_allclose(adapter.weight, expected, **CLOSE)


@pytest.mark.parametrize('labels', [[0, 5, 1, 7], [5, 5, 5, 5], [0, 1, 1, 0]])
def test_the_compatibility_term_has_labels_of_the_old_classifier(labels):
  old = draw(2, 5, seed=1)
  batch = (jnp.asarray(draw(4, 8)), jnp.asarray(labels))
  apply_fn = lambda p, x: ((x * p)[:, :5], x * p)
  with_term, without = (
    stitch.bct_loss(apply_fn, old, weight=weight) for weight in (1.0, 0.0)
  )
  p = jnp.ones((1, 8), jnp.float32)
  found = with_term(p, batch, None) - without(p, batch, None)
  x = np.asarray(batch[0][:, :5])
  logits = x / np.linalg.norm(x, axis=1, keepdims=True) @ old.T
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  each = [-log_p[i, y] for i, y in enumerate(labels) if 0 <= y < 2]
  np.testing.assert_allclose(found, np.mean(each) if each else 0, **CLOSE)
  gradient = jax.jit(jax.grad(lambda p: with_term(p, batch, None)))(p)
  assert np.isfinite(gradient).all()


def test_measures_and_retrieval():
  x, y = draw(30, 4), draw(30, 3, seed=1)
  k, other = (
    np.exp(-d / (2 * np.median(d[np.triu_indices(30, 1)])))
    for d in (((v[:, None] - v[None]) ** 2).sum(-1) for v in (x, y))
  )
  h = np.eye(30) - 1 / 30
  hsic = lambda a, b: np.trace(a @ h @ b @ h)
  expected = hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))
  found = stats.rbf_cka(x, y, unbiased=False)
  np.testing.assert_allclose(found, expected, **CLOSE)
  labels = np.arange(30) % 3
  directions = x / np.linalg.norm(x, axis=1, keepdims=True)
  similarity = directions @ directions.T - 9 * np.eye(30)
  top1 = np.mean(labels[similarity.argmax(1)] == labels)
  rows = range(30)
  found = stitch.retrieval((x, labels), (x, labels), ids=(rows, rows))
  np.testing.assert_allclose(found, top1, **CLOSE)


def test_coefficients_by_given_masks():
  base, cells = {'w': jnp.zeros((3, 4), jnp.float32)}, np.arange(12) % 3
  delta = draw(2, 3, 4)
  bank = scale.as_bank(base, {'w': jnp.asarray(delta)})
  coefs = scale.init(bank, by=('masks', cells.reshape(3, 4)))
  values = draw(2, 3, seed=1)
  coefs.values['w'] = jnp.asarray(values)
  expected = (values[:, cells].reshape(2, 3, 4) * delta).sum(0)
  found = jax.jit(scale.compose)(base, bank, coefs)['w']
  np.testing.assert_allclose(found, expected, **CLOSE)
  total = tree.norm({'w': delta}, ord=1)
  np.testing.assert_allclose(total, np.abs(delta).sum(), **CLOSE)
