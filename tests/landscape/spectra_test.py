import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import landscape


def draw(seed, *shape):
  return np.random.RandomState(seed).randn(*shape)


def by_definition(x, y, threshold):
  """Returns the double sum over pairs of singular vectors, and the counts."""
  x, y = (z.reshape(-1, z.shape[-1]) for z in (x, y))
  (u, s, vt), (p, q, rt) = (
    np.linalg.svd(z, full_matrices=False) for z in (x, y)
  )
  r_a, r_b = (int((z >= threshold * z[0]).sum()) for z in (s, q))
  total = sum(
    (u[:, i] @ p[:, j]) * (vt[i] @ rt[j])
    for i in range(r_a)
    for j in range(r_b)
  )
  return total / np.sqrt(r_a * r_b), (r_a, r_b)


@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize('shape', [(6, 4), (3, 7), (2, 3, 4, 5)])
def test_against_the_double_sum_of_the_definition(shape, threshold):
  a, b = draw(0, *shape), draw(1, *shape)
  found = landscape.singular_alignment(
    {'w': jnp.asarray(a)}, {'w': jnp.asarray(b)}, threshold=threshold
  )
  value, counts = by_definition(a, b, threshold)
  np.testing.assert_allclose(found.leaves['w'], value, atol=1e-12)
  assert tuple(found.counts['w'].tolist()) == counts


def test_literally():
  # Singular values 4, 2, 1 of e1 e1^T, e2 e2^T, e3 e3^T: a threshold of 0.5
  # keeps two of a, and two of b, where the first two units are exchanged.
  a = jnp.diag(jnp.asarray([4.0, 2.0, 1.0]))
  b = a[jnp.asarray([1, 0, 2])]
  align = lambda x, y, g: landscape.singular_alignment(
    {'w': x}, {'w': y}, threshold=g
  )
  assert align(a, a, 0.5).leaves['w'] == 1.0
  np.testing.assert_allclose(align(a, b, 0.5).leaves['w'], 0.0, atol=1e-15)
  np.testing.assert_allclose(align(a, b, 0.2).leaves['w'], 1 / 3)
  assert align(a, b, 0.2).counts['w'].tolist() == [3.0, 3.0]
  assert align(a, -a, 0.5).leaves['w'] == -1.0
  first = jnp.diag(jnp.asarray([4.0, 0.1, 0.1]))  # only the first
  np.testing.assert_allclose(align(a, first, 0.5).leaves['w'], 1 / np.sqrt(2))


def test_the_mean_gives_equal_weight_to_matrices():
  a = {'w': jnp.eye(2), 'v': jnp.eye(64), 'bias': jnp.ones(3)}
  b = {'w': jnp.eye(2), 'v': -jnp.eye(64), 'bias': jnp.ones(3)}
  found = landscape.singular_alignment(a, b)
  assert found.leaves['bias'] is None
  assert found.counts['bias'] is None
  np.testing.assert_allclose(found.mean, 0.0, atol=1e-12)
  only = landscape.singular_alignment(a, b, leaves='^w$')
  assert only.leaves['v'] is None
  np.testing.assert_allclose(only.mean, 1.0)


def test_invariance_to_permutations_of_both_models():
  a, b = draw(2, 5, 6), draw(3, 5, 6)
  rows, columns = np.random.RandomState(4).permutation(5), np.arange(6)[::-1]
  permute = lambda x: x[rows][:, columns]
  before, after = (
    landscape.singular_alignment({'w': jnp.asarray(x)}, {'w': jnp.asarray(y)})
    for x, y in ((a, b), (permute(a), permute(b)))
  )
  np.testing.assert_allclose(before.mean, after.mean, atol=1e-12)
  aligned = landscape.singular_alignment(
    {'w': jnp.asarray(a)}, {'w': jnp.asarray(permute(a)[np.argsort(rows)])}
  )
  assert aligned.counts['w'][0] == aligned.counts['w'][1]


def test_equal_singular_values():
  rotation = np.linalg.qr(draw(5, 4, 4))[0]
  found = landscape.singular_alignment(
    {'w': jnp.asarray(rotation)}, {'w': jnp.asarray(2 * rotation)}
  )
  np.testing.assert_allclose(found.mean, 1.0)


def test_rank_deficient_and_zero_matrices():
  x = np.outer(draw(6, 5), draw(7, 4))
  found = landscape.singular_alignment(
    {'w': jnp.asarray(x)}, {'w': jnp.asarray(3 * x)}, threshold=0.0
  )
  assert found.counts['w'].tolist() == [1.0, 1.0]
  np.testing.assert_allclose(found.mean, 1.0)
  zero = landscape.singular_alignment(
    {'w': jnp.zeros((5, 4))}, {'w': jnp.asarray(x)}
  )
  assert zero.mean == 0.0
  assert zero.counts['w'].tolist() == [0.0, 1.0]


def test_under_jit_and_vmap_and_in_low_precision():
  a, b = (jnp.asarray(draw(i, 3, 6, 4), 'float32') for i in (8, 9))
  run = lambda x, y: landscape.singular_alignment({'w': x}, {'w': y}).mean
  each = jnp.stack([run(x, y) for x, y in zip(a, b)])
  np.testing.assert_allclose(jax.jit(jax.vmap(run))(a, b), each, atol=1e-6)
  assert run(a[0].astype('bfloat16'), b[0].astype('bfloat16')).dtype == (
    'float32'
  )


def test_bad_arguments_are_named():
  w = {'w': jnp.ones((2, 3)), 'b': jnp.ones(3)}
  run = landscape.singular_alignment
  with pytest.raises(ValueError, match=r'threshold=1\.5, expected a fraction'):
    run(w, w, threshold=1.5)
  with pytest.raises(ValueError, match="singular_alignment: leaf 'w' has"):
    run(w, {**w, 'w': jnp.ones((3, 2))})
  with pytest.raises(ValueError, match=r"leaf 'b' of shape \(3,\) is chosen"):
    run(w, w, leaves='.*')
  with pytest.raises(ValueError, match="no leaf matches 'kernel'"):
    run(w, w, leaves='kernel')
  with pytest.raises(ValueError, match='no leaf of floats has two axes'):
    run({'b': w['b']}, {'b': w['b']})
