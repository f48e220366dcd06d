"""Sampling of routes, and the loss of the sampled route."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch

FLOPS = np.asarray([4.0, 1.0, 1.5, 9.0, 9.5, 9.9, 1.2])


def test_uniform_without_buckets():
  found = stitch.route_probabilities(FLOPS)
  np.testing.assert_array_equal(found, np.full(7, 1 / 7))


@pytest.mark.parametrize('rising', [False, True])
@pytest.mark.parametrize('gap', [0.4, 1.0, 3.0, 100.0])
def test_probabilities_of_buckets_and_routes(gap, rising):
  """Enumerates buckets by cost; routes of one bucket are equally likely."""
  buckets = collections.defaultdict(list)
  for i in np.argsort(FLOPS):
    buckets[int((FLOPS[i] - 1.0) // gap)].append(i)
  expected = np.zeros(7)
  weights = [n + 1 if rising else 1 for n in range(len(buckets))]
  for weight, (_, members) in zip(weights, sorted(buckets.items())):
    for i in members:
      expected[i] = weight / sum(weights) / len(members)
  found = stitch.route_probabilities(FLOPS, gap=gap, rising=rising)
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  np.testing.assert_allclose(found.sum(), 1, rtol=1e-12)


def test_the_loss_samples_with_the_probabilities():
  """The loss equals an identifier of the route, which is counted."""
  apply_fn = lambda family, row, x: jnp.stack(
    [jnp.zeros_like(x), row[0] + 0 * x], -1
  )
  p = np.asarray([0.5, 0.0, 0.25, 0.25])
  rows = jnp.asarray([[10.0], [20.0], [30.0], [40.0]])
  loss = stitch.random_route(apply_fn, rows, probabilities=p)
  batch = (jnp.zeros(1), jnp.zeros(1, jnp.int32))
  keys = jax.random.split(jax.random.key(0), 4000)
  drawn = jax.vmap(lambda key: loss(None, batch, key))(keys).round()
  values, counts = np.unique(np.asarray(drawn), return_counts=True)
  np.testing.assert_array_equal(values, [10, 30, 40])
  expected = 4000 * p[[0, 2, 3]]
  deviation = np.sqrt(expected * (1 - p[[0, 2, 3]]))
  assert (abs(counts - expected) < 4 * deviation).all()


def test_the_teacher_has_half_of_the_loss():
  logits = jnp.asarray([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
  apply_fn = lambda family, row, x: x + family + row[0]
  loss = stitch.random_route(apply_fn, jnp.zeros((1, 1)))
  labels, taught = jnp.asarray([0, 2]), jnp.asarray([1, 2])
  found = loss(0.0, (logits, labels, taught), jax.random.key(0))
  log_q = np.asarray(logits) - np.log(
    np.exp(np.asarray(logits)).sum(-1, keepdims=True)
  )
  each = [-log_q[[0, 1], np.asarray(y)].mean() for y in (labels, taught)]
  np.testing.assert_allclose(found, np.mean(each), rtol=1e-6)
  soft = jax.nn.one_hot(taught, 3, dtype=jnp.float32)
  again = loss(0.0, (logits, labels, soft), jax.random.key(0))
  np.testing.assert_allclose(again, np.mean(each), rtol=1e-6)
  alone = loss(0.0, (logits, labels), jax.random.key(0))
  np.testing.assert_allclose(alone, each[0], rtol=1e-6)


@pytest.mark.parametrize('divide', ['entries', 'batch'])
@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
def test_soft_distillation_with_a_temperature(divide, share):
  random = np.random.RandomState(0)
  logits, taught = random.randn(2, 4, 3)
  labels = np.asarray([0, 2, 1, 1])
  loss = stitch.random_route(
    lambda family, row, x: x + family,
    jnp.zeros((1, 1)),
    share=share,
    temperature=3.0,
    divide=divide,
  )
  log = lambda z: z - np.log(np.exp(z).sum(-1, keepdims=True))
  p, q = log(taught / 3), log(logits / 3)
  divergence = (np.exp(p) * (p - q)).sum() / (12 if divide == 'entries' else 4)
  supervised = -log(logits)[np.arange(4), labels].mean()
  expected = (1 - share) * supervised + share * 9 * divergence
  batch = (jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(taught))
  found = loss(0.0, batch, jax.random.key(0))
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  # The teacher gets no gradient, and one that agrees gives none.
  same = (batch[0], batch[1], batch[0])
  alone = stitch.random_route(lambda f, r, x: x + f, jnp.zeros((1, 1)))
  grad = lambda fn, batch: jax.grad(
    lambda x: fn(jnp.zeros((4, 3)) + x, batch, jax.random.key(0))
  )(jnp.zeros((4, 3)))
  wanted = (1 - share) * grad(alone, batch[:2])
  np.testing.assert_allclose(grad(loss, same), wanted, atol=1e-12)


def test_errors():
  route = lambda **options: stitch.random_route(
    lambda *a: a, jnp.zeros((1, 1)), **options
  )
  with pytest.raises(ValueError, match=r'share=2 and temperature=None: expect'):
    route(share=2)
  with pytest.raises(ValueError, match=r'temperature=0: expected 0 \.\. 1 and'):
    route(temperature=0)
  with pytest.raises(ValueError, match=r"divide='bach'.*did you mean 'batch'"):
    route(temperature=1.0, divide='bach')
  with pytest.raises(ValueError, match=r'gap=0: expected the cost .* positive'):
    stitch.route_probabilities(FLOPS, gap=0)
  with pytest.raises(ValueError, match=r'\[2\] probabilities .* for 3'):
    stitch.random_route(lambda *a: a, jnp.zeros((3, 1)), probabilities=[1, 0])
  with pytest.raises(ValueError, match=r'of sum 0\.9 for 2 routes'):
    stitch.random_route(
      lambda *a: a, jnp.zeros((2, 1)), probabilities=[0.5, 0.4]
    )
