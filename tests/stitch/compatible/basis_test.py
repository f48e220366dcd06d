"""Rotations, basis transformation, BCT and BT^2 losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch

KINDS = ['cayley', 'exponential']
EXACT = {'rtol': 0, 'atol': 1e-10}


def normal(seed, *shape):
  return jnp.asarray(np.random.RandomState(seed).randn(*shape))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [1, 5])
def test_rotations(kind, size):
  free = normal(size, size, size)
  q = np.asarray(stitch.orthogonal(free, kind=kind))
  np.testing.assert_allclose(q @ q.T, np.eye(size), **EXACT)
  np.testing.assert_allclose(np.linalg.det(q), 1, **EXACT)
  symmetric = free + free.T
  identity = stitch.orthogonal(symmetric, kind=kind)
  np.testing.assert_allclose(identity, np.eye(size), **EXACT)
  inverse = stitch.orthogonal(-free, kind=kind)
  np.testing.assert_allclose(inverse, q.T, **EXACT)


@pytest.mark.parametrize('angle', [0.3, 2.0, 3.1])
def test_plane_rotations_by_angle(angle):
  rotation = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
  skew = np.asarray([[0.0, 1.0], [0.0, 0.0]])
  for kind, size in (('exponential', angle), ('cayley', -np.tan(angle / 2))):
    found = stitch.orthogonal(jnp.asarray(size * skew), kind=kind)
    np.testing.assert_allclose(found, rotation, **EXACT)


@pytest.mark.parametrize('kind', KINDS)
def test_gradients_by_finite_differences(kind):
  free, weights, direction = normal(0, 3, 3), normal(1, 3, 3), normal(2, 3, 3)
  f = jax.jit(
    lambda free: jnp.sum(weights * stitch.orthogonal(free, kind=kind))
  )
  step = 1e-5
  slope = (f(free + step * direction) - f(free - step * direction)) / (2 * step)
  found = jnp.sum(jax.grad(f)(free) * direction)
  np.testing.assert_allclose(found, slope, atol=1e-8)


def reflection(size, seed=0):
  """A random orthogonal matrix of determinant -1."""
  q = np.linalg.qr(np.random.RandomState(seed).randn(size, size))[0]
  return jnp.asarray(q * np.r_[-np.linalg.det(q), np.ones(size - 1)][None])


@pytest.mark.parametrize('size', [1, 2, 5])
def test_given_orthogonal_matrices_are_held_reflections_too(size):
  given = reflection(size)
  found = stitch.orthogonal(given, kind='polar')
  np.testing.assert_allclose(found, given, **EXACT)
  np.testing.assert_allclose(jnp.linalg.det(found), -1, **EXACT)
  scaled = stitch.orthogonal(3 * given, kind='polar')
  np.testing.assert_allclose(scaled, given, **EXACT)


@pytest.mark.parametrize('free', [normal(0, 4, 4), reflection(4)])
def test_polar_gradients_by_finite_differences(free):
  weights, direction = normal(1, 4, 4), normal(2, 4, 4)
  f = jax.jit(
    lambda free: jnp.sum(weights * stitch.orthogonal(free, kind='polar'))
  )
  slope = (f(free + 1e-5 * direction) - f(free - 1e-5 * direction)) / 2e-5
  found = jnp.sum(jax.grad(f)(free) * direction)
  np.testing.assert_allclose(found, slope, atol=1e-8)


def test_a_basis_of_given_matrices():
  p, q = reflection(5), reflection(4, 1)
  basis = stitch.Basis(inner=p, outer=q, extra=2, scale=3.0, kind='polar')
  n, o = normal(0, 3, 5), normal(1, 3, 4)
  v = np.concatenate([unit(o[:, :2]), 3 * unit(n) @ p.T], 1)
  expected = np.concatenate([v[:, :4] @ q.T, v[:, 4:]], 1)
  found = stitch.basis_transform(basis, n, o)
  np.testing.assert_allclose(found, expected, **EXACT)


def test_orthogonal_mistakes_and_dtypes():
  assert stitch.orthogonal(jnp.ones((2, 2), jnp.bfloat16)).dtype == jnp.float32
  with pytest.raises(
    ValueError, match=r"no kind 'caley' .did you mean 'cayley"
  ):
    stitch.orthogonal(jnp.eye(2), kind='caley')
  with pytest.raises(ValueError, match=r'\[2, 3\] is not square'):
    stitch.orthogonal(jnp.ones((2, 3)))


def wide(basis):
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), basis)


@pytest.mark.parametrize(
  ('kind', 'new', 'old', 'extra'),
  [('cayley', 6, 4, 2), ('exponential', 3, 5, 2)],
)
def test_recoding_by_definition(kind, new, old, extra):
  basis = wide(
    stitch.random_basis(
      jax.random.key(0), new=new, old=old, extra=extra, scale=3.0, kind=kind
    )
  )
  n, o = normal(0, 4, new), normal(1, 4, old)
  found = stitch.basis_transform(basis, n, o)
  p, q = (
    np.asarray(stitch.orthogonal(x, kind=kind))
    for x in (basis.inner, basis.outer)
  )
  for row in range(4):
    head = o[row, :extra] / np.linalg.norm(o[row, :extra])
    tail = p @ (3.0 * n[row] / np.linalg.norm(n[row]))
    v = np.concatenate([head, tail])
    expected = np.concatenate([q @ v[:old], v[old:]])
    np.testing.assert_allclose(found[row], expected, **EXACT)


@pytest.mark.parametrize('kind', KINDS)
def test_recoding_preserves_norms_and_inner_products(kind):
  basis = wide(
    stitch.random_basis(jax.random.key(1), new=6, old=4, extra=2, kind=kind)
  )
  n, o = normal(0, 5, 6), normal(1, 5, 4)
  found = stitch.basis_transform(basis, n, o)
  assert found.shape == (5, 8)
  np.testing.assert_allclose(jnp.sum(found**2, -1), 1 + 2.0**2, **EXACT)
  n, head = (x / np.linalg.norm(x, axis=-1)[:, None] for x in (n, o[:, :2]))
  products = head @ head.T + 4 * n @ n.T
  np.testing.assert_allclose(found @ found.T, products, **EXACT)
  # Entries of the old features beyond the extra dimensions are ignored.
  same = stitch.basis_transform(basis, n, o.at[:, 2:].add(7.0))
  np.testing.assert_allclose(same, found, **EXACT)


def test_basis_mistakes():
  key = jax.random.key(0)
  with pytest.raises(ValueError, match=r'extra=5: expected 1 \.\. 4'):
    stitch.random_basis(key, new=3, old=4, extra=5)
  with pytest.raises(ValueError, match=r'old=9 does not fit .* extra >= 6'):
    stitch.random_basis(key, new=3, old=9, extra=2)
  basis = stitch.random_basis(key, new=3, old=4, extra=2)
  with pytest.raises(ValueError, match=r'new features are \[2, 4\], .*\.\., 3'):
    stitch.basis_transform(basis, jnp.ones((2, 4)), jnp.ones((2, 4)))
  with pytest.raises(ValueError, match=r'old features are \[1, 4\]'):
    stitch.basis_transform(basis, jnp.ones((2, 3)), jnp.ones((1, 4)))


def network(params, x):
  """Features, predicted old features and logits, all linear."""
  n, o = x @ params['n'], x @ params['o']
  return n, o, n @ params['head']


def entropy(logits, labels):
  shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return -np.mean(shifted[np.arange(len(labels)), labels])


def unit(x):
  return np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True)


def setting():
  params = {
    'n': normal(0, 3, 5),
    'o': normal(1, 3, 4),
    'head': normal(2, 5, 6),
  }
  basis = wide(stitch.random_basis(jax.random.key(0), new=5, old=4, extra=2))
  labels = jnp.asarray([0, 5, 2, 2])
  batch = (normal(3, 4, 3), labels, normal(4, 4, 5), normal(5, 4, 4))
  return params, basis, batch


def test_bt2_loss_by_definition():
  params, basis, batch = setting()
  old = normal(6, 6, 4)
  loss = stitch.bt2_loss(network, old, weights=(0.5, 2.0, 3.0))
  n, o, logits = network(params, batch[0])
  b = stitch.basis_transform(basis, n, o)[:, :4]
  cosine = lambda x, y: np.mean(np.sum(unit(x) * unit(y), -1))
  expected = (
    entropy(np.asarray(logits), batch[1])
    + 0.5 * (1 - cosine(n, batch[2]))
    + 2.0 * entropy(unit(b) @ np.asarray(old).T, batch[1])
    + 3.0 * (1 - cosine(b, batch[3]))
  )
  found = loss((params, basis), batch, jax.random.key(0))
  np.testing.assert_allclose(found, expected, **EXACT)


def test_bt2_gradients_by_finite_differences():
  params, basis, batch = setting()
  loss = stitch.bt2_loss(network, normal(6, 6, 4))
  f = jax.jit(lambda state: loss(state, batch, None))
  state = (params, basis)
  leaves, structure = jax.tree.flatten(state)
  direction = structure.unflatten(
    [normal(i, *leaf.shape) for i, leaf in enumerate(leaves)]
  )
  at = lambda t: jax.tree.map(lambda x, d: x + t * d, state, direction)
  slope = (f(at(1e-5)) - f(at(-1e-5))) / 2e-5
  grads = jax.jit(jax.grad(f))(state)
  found = sum(
    jnp.sum(g * d)
    for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction))
  )
  np.testing.assert_allclose(found, slope, rtol=1e-6)
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_bct_loss_by_definition():
  params, _, batch = setting()
  old = normal(6, 6, 5)
  pair = lambda params, x: network(params, x)[::2]
  found = stitch.bct_loss(pair, old, weight=2.0)(
    params, batch[:2], jax.random.key(0)
  )
  n, logits = pair(params, batch[0])
  expected = entropy(np.asarray(logits), batch[1]) + 2.0 * entropy(
    unit(n) @ np.asarray(old).T, batch[1]
  )
  np.testing.assert_allclose(found, expected, **EXACT)
  wrong = stitch.bct_loss(pair, old[:, :4])
  with pytest.raises(ValueError, match=r'is \[6, 4\] and .* \[4, 5\]'):
    wrong(params, batch[:2], jax.random.key(0))


def narrower(loss, labels):
  """A BCT or BT^2 loss of a batch with these labels, 3 old classes."""
  params, basis, batch = setting()
  batch = (batch[0], labels, *batch[2:])
  if loss is stitch.bct_loss:
    pair = lambda params, x: network(params, x)[::2]
    made = loss(pair, normal(6, 3, 5), weight=2.0)
    return lambda state: made(state[0], batch[:2], None), (params, basis)
  made = loss(network, normal(6, 3, 4))
  return lambda state: made(state, batch, None), (params, basis)


@pytest.mark.parametrize('loss', [stitch.bct_loss, stitch.bt2_loss])
def test_labels_that_the_old_classifier_lacks_are_left_out(loss):
  # Of the labels 0, 5, 2, -1 the old classifier of 3 classes has 0 and 2.
  params, basis, (x, _, _, _) = setting()
  labels = jnp.asarray([0, 5, 2, -1])
  f, state = narrower(loss, labels)
  known = np.asarray([0, 2])
  n, o, logits = network(params, x)
  if loss is stitch.bct_loss:
    features, old, weight = n, normal(6, 3, 5), 2.0
  else:
    features = stitch.basis_transform(basis, n, o)[:, :4]
    old, weight = normal(6, 3, 4), 10.0
  term = entropy((unit(features) @ np.asarray(old).T)[known], [0, 2])
  # With no label of an old class the term is 0, and all else is equal.
  none, _ = narrower(loss, jnp.asarray([5, 5, 5, -1]))
  own = lambda labels: entropy(np.asarray(logits), labels)
  expected = none(state) + weight * term
  expected += own([0, 5, 2, -1]) - own([5, 5, 5, -1])
  np.testing.assert_allclose(jax.jit(f)(state), expected, **EXACT)
  for function in (f, none):
    grads = jax.tree.leaves(jax.jit(jax.grad(function))(state))
    assert all(np.isfinite(leaf).all() for leaf in grads)


def test_class_means():
  x = jnp.asarray([[2.0, 0.0], [0.0, 3.0], [0.0, 5.0]])
  found = stitch.class_means(x, [0, 0, 2], classes=4)
  expected = [[0.5, 0.5], [0, 0], [0, 1], [0, 0]]
  np.testing.assert_allclose(found, expected, **EXACT)
