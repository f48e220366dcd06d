"""Heads for few shots: Tip-Adapter and LP++."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import scale

EXACT = {'rtol': 0, 'atol': 1e-12}


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def setting(n=12, d=5, classes=3, seed=0):
  """Features, labels of every class, and cosines with text features."""
  random = np.random.RandomState(seed)
  labels = np.arange(n) % classes
  text = unit(random.randn(classes, d))
  x = unit(text[labels] + 0.7 * random.randn(n, d))
  return x, labels, x @ text.T


def entropy(logits, labels):
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return -log_p[np.arange(len(labels)), labels].mean()


def test_tip_adapter_is_the_definition():
  x, labels, z = setting()
  queries, _, _ = setting(n=7, seed=1)
  head = scale.tip_adapter(3 * x, labels, classes=4, alpha=1.5, beta=5.5)
  logits = 100 * np.pad(z[:7], ((0, 0), (0, 1)))
  votes = np.exp(-5.5 * (1 - queries @ x.T)) @ np.eye(4)[labels]
  for fn in (scale.tip_logits, jax.jit(scale.tip_logits)):
    found = fn(head, 2 * queries, logits)
    np.testing.assert_allclose(found, logits + 1.5 * votes, **EXACT)
  # A sharp cache of large weight returns the labels of its own examples.
  sharp = scale.tip_adapter(x, labels, classes=4, alpha=1e4, beta=1e3)
  found = scale.tip_logits(sharp, x, 100 * np.pad(z, ((0, 0), (0, 1))))
  np.testing.assert_array_equal(np.argmax(found, -1), labels)


def test_tip_adapter_trains_keys_and_scales_but_no_labels():
  x, labels, z = setting()
  head = scale.tip_adapter(x, labels, classes=3)
  assert len(jax.tree.leaves(head)) == 3

  def loss(head):
    log_p = jax.nn.log_softmax(scale.tip_logits(head, x, 10 * z))
    return -jnp.mean(log_p[np.arange(12), labels])

  grads = jax.grad(loss)(head)
  direction = jax.tree.map(
    lambda v: jnp.asarray(np.random.RandomState(v.size).randn(*v.shape)), head
  )
  at = lambda t: jax.tree.map(lambda v, d: v + t * d, head, direction)
  slope = (loss(at(1e-6)) - loss(at(-1e-6))) / 2e-6
  found = sum(
    jnp.sum(g * d)
    for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction))
  )
  np.testing.assert_allclose(found, slope, rtol=1e-6)


def test_linear_probe_is_the_definition():
  x, labels, z = setting()
  head, steps = scale.linear_probe(x, labels, z)
  sums = np.stack([x[labels == k].sum(0) for k in range(3)])
  np.testing.assert_allclose(head.weight, sums, **EXACT)
  own = np.mean([z[labels == k, k].mean() for k in range(3)])
  np.testing.assert_allclose(head.alpha, np.full(3, 250 * own), rtol=1e-12)
  largest = np.linalg.eigvalsh(x.T @ x).max()
  np.testing.assert_allclose(steps.weight, 4 * 12 / largest, rtol=1e-12)
  alpha = 12 / (4 * (z**2).sum(0).max())
  np.testing.assert_allclose(steps.alpha, alpha, rtol=1e-12)
  head = head._replace(bias=jnp.arange(3.0), alpha=jnp.asarray([1.0, 2.0, 3.0]))
  found = scale.probe_logits(head, x, z)
  expected = x @ sums.T + np.arange(3) + z * np.asarray([1, 2, 3])
  np.testing.assert_allclose(found, expected, **EXACT)


def test_the_step_sizes_descend_without_a_search():
  x, labels, z = setting(n=30)
  head, steps = scale.linear_probe(x, labels, z)

  def loss(head):
    log_p = jax.nn.log_softmax(scale.probe_logits(head, x, z))
    return -jnp.mean(log_p[np.arange(30), labels])

  values = [float(loss(head))]
  for _ in range(50):
    for name in ('weight', 'alpha'):
      grads = jax.grad(loss)(head)
      moved = getattr(head, name) - getattr(steps, name) * getattr(grads, name)
      head = head._replace(**{name: moved})
      values.append(float(loss(head)))
  assert (np.diff(values) <= 1e-12).all()
  assert values[-1] < entropy(100 * z, labels)


def test_dtypes_and_bad_arguments():
  x, labels, z = setting()
  low = scale.tip_adapter(x.astype(np.float16), labels, classes=3)
  assert scale.tip_logits(low, x.astype(np.float32), z).dtype == jnp.float64
  low = scale.linear_probe(x.astype(np.float16), labels, z.astype(np.float32))
  assert low[0].weight.dtype == low[0].alpha.dtype == jnp.float32
  with pytest.raises(
    ValueError, match=r'features are \[12, 5\] and labels \[3'
  ):
    scale.tip_adapter(x, labels[:3], classes=3)
  with pytest.raises(ValueError, match=r'labels are not in 0 \.\. 1'):
    scale.tip_adapter(x, labels, classes=2)
  with pytest.raises(ValueError, match='class 2 has no example'):
    scale.linear_probe(x, labels % 2, z)
  with pytest.raises(ValueError, match=r'zero_shot is \[4, 3\], expected \[12'):
    scale.linear_probe(x, labels, z[:4])
