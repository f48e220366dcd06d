"""The stitching penalty, its controls, and all stitches together."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.stitch import training
from wsl import stitch

DEPTH, WIDTH, CLASSES = 2, 4, 3


def dense(params, h):
  return jnp.tanh(h @ params['w'] + params['b'][None])


def linear(params, h):
  return h @ params['w']


def network(seed, depth=DEPTH, width=WIDTH, stacked=True):
  """A network of tanh blocks, as a stack or as a tuple."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
  blocks = {'w': draw(depth, width, width), 'b': draw(depth, width)}
  block = dense
  if not stacked:
    blocks = tuple(
      jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(depth)
    )
    block = (dense,) * depth
  params = {
    'embed': {'w': draw(5, width)},
    'blocks': blocks,
    'head': {'w': draw(width, CLASSES)},
  }
  return stitch.Segmented(params, linear, block, linear)


def inputs(seed, count=60):
  return jnp.asarray(np.random.default_rng(seed).normal(size=(count, 5)))


A, B, R = network(0), network(1), network(2)
X = inputs(3)
TESTS = [
  (X[:30], jnp.argmax(stitch.apply(A, X[:30]), 1)),
  (X[30:], jnp.zeros(30, int)),
]
DIAGONAL = [(p, p) for p in range(DEPTH + 1)]
ALL = [(p, q) for p in range(DEPTH + 1) for q in range(DEPTH + 1)]


def adapters(bottom, top, pairs):
  return stitch.fit_pairs(bottom, top, [X], pairs=pairs)


@pytest.mark.parametrize('stacked', [True, False])
def test_all_stitches_together_equal_each_alone(stacked):
  top = network(0, stacked=stacked)
  bottom = network(1, depth=3, width=6)
  pairs = [(3, 0), (1, 2), (0, 0), (2, 1), (3, 2)]
  maps = adapters(bottom, top, pairs)
  found = stitch.cut_outputs(bottom, top, maps, X)
  assert list(found) == pairs
  for p, q in pairs:
    value = stitch.features(bottom, X)[p]
    h = stitch.apply_adapter(maps[p, q], value)
    h = stitch.advance(top, h, q, DEPTH)
    np.testing.assert_allclose(
      found[p, q], h @ top.params['head']['w'], atol=1e-12
    )


def test_errors_are_counted_over_batches():
  whole = {(0, 0): stitch.Adapter()}
  found = stitch.cut_errors(A, A, whole, TESTS)
  guesses = np.asarray(stitch.apply(A, X)).argmax(1)
  labels = np.concatenate([np.asarray(y) for _, y in TESTS])
  assert found == {(0, 0): np.mean(guesses != labels)}


def test_a_network_stitched_on_itself_has_no_penalty():
  found = stitch.penalty(A, A, R, [X], TESTS, pairs=DIAGONAL)
  for part in (found.bottom, found.own):
    np.testing.assert_array_equal(part.penalty, 0)
    np.testing.assert_allclose(part.residual, 0, atol=1e-10)
    np.testing.assert_allclose(part.cka, 1, atol=1e-10)
  assert (found.random.residual > 0.01).all()
  for adapter in adapters(A, A, DIAGONAL).values():
    np.testing.assert_allclose(adapter.weight, np.eye(WIDTH), atol=1e-10)
    np.testing.assert_allclose(adapter.bias, 0, atol=1e-10)


def test_a_bottom_that_is_an_affine_image_has_no_penalty():
  """The last values of B, but no others, are an affine image of A's."""
  rotation = jnp.asarray(
    np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0]
  )
  values = stitch.features(A, X)
  first = jax.tree.map(lambda x: x[:1], A.params['blocks'])

  def rotated(params, h):
    return dense(params[0], h) @ params[1] + 0.5

  blocks = (jax.tree.map(lambda x: x[0], first), rotation)
  params = {**A.params, 'blocks': (blocks,)}
  bottom = stitch.Segmented(params, linear, (rotated,), linear)
  np.testing.assert_allclose(
    stitch.features(bottom, X)[1], values[1] @ rotation + 0.5, atol=1e-12
  )
  pairs = [(1, 1), (0, 2)]
  found = stitch.penalty(A, bottom, bottom, [X], TESTS, pairs=pairs)
  assert found.bottom.penalty[0] == 0
  assert found.bottom.residual[0] < 1e-10
  assert found.bottom.residual[1] > 0.01
  for mine, control in zip(found.bottom, found.random):
    np.testing.assert_array_equal(mine, control)


def test_penalties_by_definition():
  found = stitch.penalty(A, B, R, [X], TESTS)
  assert found.pairs == tuple(ALL)
  labels = np.concatenate([np.asarray(y) for _, y in TESTS])
  wrong = lambda y: np.mean(np.asarray(y).argmax(1) != labels)
  assert found.error == wrong(stitch.apply(A, X))
  for part, bottom in ((found.bottom, B), (found.random, R)):
    for i, (p, q) in enumerate(ALL):
      x = np.asarray(stitch.features(bottom, X)[p])
      y = np.asarray(stitch.features(A, X)[q])
      ones = np.c_[x, np.ones(len(x))]
      solution, *_ = np.linalg.lstsq(ones, y, rcond=None)
      h = stitch.advance(A, jnp.asarray(ones @ solution), q, DEPTH)
      expected = wrong(h @ A.params['head']['w']) - found.error
      assert part.penalty[i] == pytest.approx(expected, abs=1e-12)
      residual = np.square(y - ones @ solution).sum()
      residual /= np.square(y - y.mean(0)).sum()
      np.testing.assert_allclose(part.residual[i], residual, rtol=1e-6)
  np.testing.assert_array_equal(found.own.penalty, np.zeros(9))


def test_adapters_may_be_trained_further():
  optimizer = optax.adam(0.01)
  data = X[:30], TESTS[0][1]
  seen = []

  def tune(bottom, top, adapters):
    loss = jax.tree_util.Partial(stitch.penalty_loss, (bottom, top))
    tuned, losses = training.run(
      loss, adapters, data, optimizer=optimizer, steps=20, batch_size=30
    )
    seen.append((losses[0].item(), losses[-1].item()))
    return tuned

  found = stitch.penalty(A, B, R, [X], [data], pairs=DIAGONAL, tune=tune)
  assert len(seen) == 3
  assert all(after < before for before, after in seen)
  closed = stitch.penalty(A, B, R, [X], [data], pairs=iter(DIAGONAL))
  assert found.error == 0
  assert found.bottom.penalty.sum() < closed.bottom.penalty.sum()


def test_the_loss_is_the_sum_over_adapters():
  pairs = [(1, 1), (2, 0)]
  maps = adapters(B, A, pairs)
  key, batch = jax.random.key(0), (X, jnp.arange(60) % CLASSES)
  loss = functools.partial(stitch.penalty_loss, (B, A))
  whole, grads = jax.value_and_grad(loss)(maps, batch, key)
  parts = [
    jax.value_and_grad(loss)({pair: maps[pair]}, batch, key) for pair in pairs
  ]
  np.testing.assert_allclose(whole, sum(part[0] for part in parts))
  for pair, (_, own) in zip(pairs, parts):
    np.testing.assert_allclose(grads[pair].weight, own[pair].weight, atol=1e-12)
  y = np.asarray(stitch.cut_outputs(B, A, maps, X)[1, 1])
  y = y - y.max(1, keepdims=True)
  logs = y - np.log(np.exp(y).sum(1, keepdims=True))
  expected = -np.mean(logs[np.arange(60), np.arange(60) % CLASSES])
  np.testing.assert_allclose(parts[0][0], expected)


def halve(params, h):
  """A mix of channels at every second row and column."""
  return jnp.tanh(h[:, ::2, ::2] @ params['w'])


def mean(params, h):
  return h.mean((1, 2)) @ params['w']


def test_networks_whose_resolution_changes():
  def small(seed):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: {'w': jnp.asarray(rng.normal(size=shape))}
    blocks = draw(4, 4), draw(4, 4)
    params = {'embed': draw(1, 4), 'blocks': blocks, 'head': draw(4, 3)}
    return stitch.Segmented(params, linear, (halve, halve), mean)

  a, b, c = small(0), small(1), small(2)
  x = jnp.asarray(np.random.default_rng(3).normal(size=(16, 4, 4, 1)))
  tests = [(x, jnp.argmax(stitch.apply(a, x), 1))]
  pairs = [(1, 1), (1, 2), (2, 0)]
  found = stitch.penalty(a, b, c, [x], tests, pairs=pairs)
  assert found.error == 0
  assert (found.bottom.residual[1:] > 0.01).all()
  np.testing.assert_array_equal(found.own.penalty, 0)


def test_mistakes_are_named():
  with pytest.raises(ValueError, match=r'pair \(0, 3\): .* the top 0 \.\. 2'):
    stitch.penalty(A, B, R, [X], TESTS, pairs=[(0, 3)])
  with pytest.raises(ValueError, match='no pairs of positions'):
    stitch.penalty(A, B, R, [X], TESTS, pairs=[])
  with pytest.raises(ValueError, match='batches can be read only once'):
    stitch.penalty(A, B, R, iter([X]), TESTS)
  with pytest.raises(ValueError, match='tests can be read only once'):
    stitch.penalty(A, B, R, [X], (t for t in TESTS))
  with pytest.raises(ValueError, match='random bottom is not like the bottom'):
    stitch.penalty(A, B, network(2, depth=3), [X], TESTS)
  with pytest.raises(ValueError, match='no batches given'):
    stitch.cut_errors(A, A, {(0, 0): stitch.Adapter()}, [])
  with pytest.raises(ValueError, match=r"no kind 'afine' .*'affine'"):
    stitch.penalty(A, B, R, [X], TESTS, pairs=DIAGONAL, kind='afine')
