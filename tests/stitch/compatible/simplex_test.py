"""The d-Simplex, its contrastive loss, and retrieval across models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch

EXACT = {'rtol': 0, 'atol': 1e-10}


@pytest.mark.parametrize('classes', [2, 3, 10, 64])
def test_the_gram_matrix_of_the_simplex(classes):
  rows = stitch.simplex(classes, dtype=jnp.float64)
  assert rows.shape == (classes, classes - 1)
  cosine = -1 / (classes - 1)
  gram = (1 - cosine) * np.eye(classes) + cosine
  np.testing.assert_allclose(rows @ rows.T, gram, **EXACT)
  np.testing.assert_allclose(jnp.sum(rows, 0), 0, **EXACT)
  assert stitch.simplex(classes).dtype == jnp.float32


def test_one_class_has_no_simplex():
  with pytest.raises(ValueError, match='classes=1: expected 2 or more'):
    stitch.simplex(1)


def normal(seed, *shape):
  return jnp.asarray(np.random.RandomState(seed).randn(*shape))


def unit(x):
  return np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True)


def hoc(new, old, labels, mu):
  """The contrastive loss, one example at a time."""
  losses = []
  for i, anchor in enumerate(unit(old)):
    s = np.exp(mu * unit(new) @ anchor)
    others = sum(s[j] for j in range(len(s)) if labels[j] != labels[i])
    losses.append(-np.log(s[i] / (s[i] + others)))
  return np.mean(losses)


def features(w, x):
  return x @ w, x @ w @ normal(9, 4, 3)


def test_hoc_loss_by_definition():
  w, x, old = normal(0, 5, 4), normal(1, 6, 5), normal(2, 6, 4)
  labels = np.asarray([0, 1, 1, 2, 0, 1])
  batch = (x, jnp.asarray(labels), old)
  key = jax.random.key(0)
  contrastive = stitch.hoc_loss(features, sharpness=3.0, weight=0.0)
  expected = hoc(x @ w, old, labels, 3.0)
  np.testing.assert_allclose(contrastive(w, batch, key), expected, **EXACT)
  supervised = stitch.hoc_loss(features, weight=1.0)(w, batch, key)
  logits = jax.nn.log_softmax(features(w, x)[1])
  entropy = -np.mean(np.asarray(logits)[np.arange(6), labels])
  np.testing.assert_allclose(supervised, entropy, **EXACT)
  half = stitch.hoc_loss(features, sharpness=3.0, weight=0.5)(w, batch, key)
  np.testing.assert_allclose(half, (expected + entropy) / 2, **EXACT)


def test_hoc_excludes_the_own_class_and_is_not_negative():
  w, x = normal(0, 5, 4), normal(1, 6, 5)
  loss = jax.jit(stitch.hoc_loss(features, weight=0.0))
  one_class = jnp.zeros(6, jnp.int32)
  key = jax.random.key(0)
  single = loss(w, (x, one_class, normal(2, 6, 4)), key)
  np.testing.assert_allclose(single, 0, **EXACT)
  grads = jax.grad(loss)(w, (x, one_class, normal(2, 6, 4)), key)
  np.testing.assert_allclose(grads, 0, **EXACT)
  assert loss(w, (x, jnp.arange(6) % 3, x @ w), key) > 0
  with pytest.raises(ValueError, match=r'new features are \[6, 4\], old'):
    loss(w, (x, one_class, normal(2, 6, 3)), key)


def test_hoc_gradients_by_finite_differences():
  w, direction = normal(0, 5, 4), normal(3, 5, 4)
  batch = (normal(1, 6, 5), jnp.asarray([0, 1, 1, 2, 0, 1]), normal(2, 6, 4))
  f = jax.jit(lambda w: stitch.hoc_loss(features)(w, batch, None))
  slope = (f(w + 1e-5 * direction) - f(w - 1e-5 * direction)) / 2e-5
  found = jnp.sum(jax.grad(f)(w) * direction)
  np.testing.assert_allclose(found, slope, rtol=1e-6)


def mean_average_precision(q, g, q_labels, g_labels):
  """Mean average precision by definition."""
  found = []
  for query, label in zip(unit(q), q_labels):
    order = np.argsort(-(unit(g) @ query), kind='stable')
    right = np.asarray(g_labels)[order] == label
    ranks = np.nonzero(right)[0] + 1
    precisions = [right[:r].sum() / r for r in ranks]
    found.append(np.mean(precisions) if len(precisions) else 0.0)
  return np.mean(found)


def test_retrieval_by_numpy():
  q, g = normal(0, 70, 4), normal(1, 9, 4)
  q_labels = np.random.RandomState(2).randint(0, 4, 70)
  g_labels = np.random.RandomState(3).randint(0, 3, 9)  # no class 3
  nearest = g_labels[np.argmax(unit(q) @ unit(g).T, -1)]
  top1 = stitch.retrieval((q, q_labels), (g, g_labels))
  np.testing.assert_allclose(top1, np.mean(nearest == q_labels), **EXACT)
  found = stitch.retrieval((q, q_labels), (g, g_labels), metric='map')
  expected = mean_average_precision(q, g, q_labels, g_labels)
  np.testing.assert_allclose(found, expected, **EXACT)


def test_retrieval_leaves_the_query_out_by_its_id():
  x, labels = normal(0, 30, 4), np.random.RandomState(2).randint(0, 4, 30)
  assert stitch.retrieval((x, labels), (x, labels)) == 1
  rows = range(30)
  similarity = unit(x) @ unit(x).T
  np.fill_diagonal(similarity, -np.inf)
  top1 = np.mean(labels[np.argmax(similarity, -1)] == labels)
  found = stitch.retrieval((x, labels), (x, labels), ids=(rows, rows))
  np.testing.assert_allclose(found, top1, **EXACT)
  # Queries that are part of the gallery, in another order.
  part = np.asarray([7, 3, 12])
  others = [np.delete(np.arange(30), i) for i in part]
  queries = x[part], labels[part]
  found = stitch.retrieval(queries, (x, labels), metric='map', ids=(part, rows))
  each = [
    mean_average_precision(
      x[i : i + 1], x[rest], labels[i : i + 1], labels[rest]
    )
    for i, rest in zip(part, others)
  ]
  np.testing.assert_allclose(found, np.mean(each), **EXACT)
  matrix = stitch.compatibility_matrix(
    [x], [x], labels, labels, ids=(rows, rows)
  )
  np.testing.assert_allclose(matrix, [[top1]], **EXACT)


def test_a_query_that_is_the_whole_gallery_retrieves_nothing():
  x, y = jnp.ones((1, 2)), jnp.zeros(1, int)
  for metric in ('top1', 'map'):
    assert stitch.retrieval((x, y), (x, y), metric=metric, ids=([0], [0])) == 0


def test_compatibility_of_permuted_features():
  gallery, labels = jnp.eye(3), jnp.arange(3)
  cycled = jnp.eye(3)[jnp.asarray([1, 2, 0])]
  swapped = jnp.eye(3)[jnp.asarray([1, 0, 2])]
  models = [gallery, cycled, swapped]
  found = stitch.compatibility_matrix(models, models, labels, labels)
  third = 1 / 3
  expected = [[1, 0, third], [0, 1, third], [third, third, 1]]
  np.testing.assert_allclose(found, expected, **EXACT)
  assert stitch.average_compatibility(found) == 0
  better = [[0.5, 0, 0], [0.5, 0.6, 0], [0.6, 0.7, 0.8]]
  assert stitch.average_compatibility(better) == pytest.approx(2 / 3)


def test_leading_entries_of_different_widths_are_compared_on_request():
  gallery, labels = jnp.eye(3), jnp.arange(3)
  wider = jnp.concatenate([jnp.eye(3), 9 * jnp.eye(3)[::-1]], 1)
  models = [gallery, wider]
  with pytest.raises(
    ValueError, match='model 0 are 3 wide, of model 1 6: pass'
  ):
    stitch.compatibility_matrix(models, models, labels, labels)
  found = stitch.compatibility_matrix(
    models, models, labels, labels, leading=True
  )
  np.testing.assert_array_equal(found, np.ones((2, 2)))


MISTAKES = [
  (
    lambda x, y: stitch.retrieval((x, y), (x[:, :2], y)),
    'queries are 3 wide and the gallery 2',
  ),
  (
    lambda x, y: stitch.retrieval((x, y[:2]), (x, y)),
    r'queries are \[4, 3\] with labels \[2\]',
  ),
  (
    lambda x, y: stitch.retrieval((x, y), (x, y), ids=(y[:2], y)),
    r'ids are \[2\] and \[4\]: expected one for each of 4 queries',
  ),
  (
    lambda x, y: stitch.retrieval((x, y), (x, y), metric='top'),
    "no metric 'top'",
  ),
  (
    lambda x, y: stitch.compatibility_matrix([x], [x, x], y, y),
    'queries of 1 models and galleries of 2',
  ),
  (
    lambda x, y: stitch.average_compatibility([[1.0]]),
    r'\[1, 1\], expected \[T, T\] of T >= 2',
  ),
]


@pytest.mark.parametrize(('call', 'message'), MISTAKES)
def test_mistakes(call, message):
  with pytest.raises(ValueError, match=message):
    call(normal(0, 4, 3), jnp.arange(4))
