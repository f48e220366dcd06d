"""evaluate and average: all examples have equal weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import train

LOGITS = jnp.array(
  [[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0],
   [0.0, 5.0, 0.0]]
)  # fmt: skip
LABELS = jnp.array([0, 1, 0, 1, 1])


def scaled(params, x):
  return params * x


@pytest.mark.parametrize('batch_size', [1, 2, 3, 5, 8])
def test_all_examples_have_equal_weight(batch_size):
  data = (LOGITS, LABELS)
  metrics = train.evaluate(
    scaled, jnp.full((1, 1), 1.0), data, batch_size=batch_size
  )
  logits = np.asarray(LOGITS)
  losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(5), LABELS]
  np.testing.assert_allclose(metrics.loss, losses.mean(), rtol=1e-12)
  np.testing.assert_allclose(metrics.accuracy, 0.6, rtol=1e-12)


def test_token_labels_and_vmap():
  logits = jax.random.normal(jax.random.key(0), (5, 4, 3))
  labels = jax.random.randint(jax.random.key(1), (5, 4), 0, 3)
  run = lambda scale: train.evaluate(
    scaled, scale, (logits, labels), batch_size=2
  )
  scales = jnp.array([1.0, -1.0]).reshape(2, 1, 1, 1)
  many = jax.jit(jax.vmap(run))(scales)
  for i in range(2):
    alone = run(scales[i])
    np.testing.assert_allclose(many.loss[i], alone.loss, rtol=1e-12)
    np.testing.assert_allclose(many.accuracy[i], alone.accuracy, rtol=1e-12)
  best = np.asarray(logits).argmax(-1) == np.asarray(labels)
  np.testing.assert_allclose(many.accuracy[0], best.mean(), rtol=1e-12)


def test_evaluation_compiles_once():
  traces = []

  def apply_fn(params, x):
    traces.append(1)
    return params * x

  for scale in (1.0, 2.0):
    params = jnp.full((1, 1), scale)
    train.evaluate(apply_fn, params, (LOGITS, LABELS), batch_size=5)
  assert len(traces) == 1


def test_average_of_any_metrics_of_half_precision_data():
  data = jnp.arange(7, dtype=jnp.bfloat16)
  means = train.average(
    lambda p, x: {'x': x * p, 'even': x % 2 == 0},
    jnp.asarray(2.0, jnp.bfloat16),
    data,
    batch_size=3,
  )
  assert means['x'].dtype == jnp.float32
  np.testing.assert_allclose(means['x'], 6.0)
  np.testing.assert_allclose(means['even'], 4 / 7, rtol=1e-6)


def test_data_without_examples_is_refused():
  with pytest.raises(ValueError, match=r'^average: data has no examples'):
    train.average(scaled, jnp.ones(()), jnp.ones((0, 2)), batch_size=4)
