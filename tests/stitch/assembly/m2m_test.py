"""Module-to-module distillation, and distillation into a Learngene pool."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.stitch import training
from tests.stitch.assembly import toys
from wsl import stitch
from wsl.stitch import _adapter

X, Y = toys.examples(6)
BATCH = jnp.asarray(X), jnp.asarray(Y)


def dense_map(seed, d, m):
  return stitch.Adapter(toys.draw(seed, d, m), toys.draw(seed + 1, m))


META = stitch.meta_model(toys.network(0), count=2)
TEACHERS = stitch.split(toys.network(10), count=2)


@pytest.mark.parametrize('slot', range(2))
@pytest.mark.parametrize('divide', ['entries', 'batch'])
def test_distillation_vanishes_if_the_student_is_the_teacher(slot, divide):
  same = stitch.Adapter()
  student = stitch.Student(
    TEACHERS[slot], None if slot == 0 else same, None if slot == 1 else same
  )
  pair = functools.partial(
    stitch.m2m, META, TEACHERS[slot], slot=slot, criterion=toys.criterion
  )
  loss = pair(share=1.0, divide=divide, temperature=2.0)
  value, gradient = jax.jit(jax.value_and_grad(loss))(student, BATCH, toys.KEY)
  assert value == 0
  for leaf in jax.tree.leaves(gradient):
    np.testing.assert_allclose(leaf, 0, atol=1e-15)
  # Only the criterion of the teacher's network remains.
  outputs = stitch.apply(
    stitch.insert_module(META, TEACHERS[slot], slot=slot), X
  )
  np.testing.assert_allclose(
    pair(share=0.25)(student, BATCH, toys.KEY),
    0.75 * toys.criterion(outputs, Y),
    rtol=1e-12,
  )


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(('divide', 'entries'), [('entries', 12), ('batch', 6)])
def test_the_loss_of_a_wider_student(divide, entries):
  module = stitch.split(toys.network(20, depth=6, width=4), count=2)[0]
  student = stitch.Student(module, None, dense_map(30, 4, 3))
  # Directly: the student's embedding and blocks, its adapter, the meta model.
  h = toys.dense(module.params['embed'], X)
  for i in range(3):
    h = toys.block(
      jax.tree.map(lambda x, i=i: x[i], module.params['blocks']), h
    )
  h = h @ student.post.weight + student.post.bias[None]
  last = jax.tree.map(lambda x: x[1], META.params['blocks'])
  s = np.asarray(toys.dense(META.params['head'], toys.block(last, h)))
  t = np.asarray(
    stitch.apply(stitch.insert_module(META, TEACHERS[0], slot=0), X)
  )
  p, q = softmax(t / 3), softmax(s / 3)
  distilled = 9 * (p * np.log(p / q)).sum() / entries
  loss = stitch.m2m(
    META,
    TEACHERS[0],
    slot=0,
    criterion=toys.criterion,
    share=0.3,
    temperature=3.0,
    divide=divide,
  )
  want = 0.7 * toys.criterion(s, Y) + 0.3 * distilled
  np.testing.assert_allclose(loss(student, BATCH, toys.KEY), want, rtol=1e-10)


def test_the_last_module_has_an_input_adapter_and_a_head():
  module = stitch.split(toys.network(20, width=4), count=2)[1]
  pre = dense_map(30, 3, 4)
  feed = stitch.advance(META, META.embed(META.params['embed'], X), 0, 1)
  h = stitch.advance(module, stitch.apply_adapter(pre, feed), 0, 2)
  want = toys.criterion(module.head(module.params['head'], h), Y)
  loss = stitch.m2m(
    META, TEACHERS[1], slot=1, criterion=toys.criterion, share=0.0
  )
  got = loss(stitch.Student(module, pre), BATCH, toys.KEY)
  np.testing.assert_allclose(got, want, rtol=1e-12)


def test_m2m_names_mistakes():
  make = functools.partial(
    stitch.m2m, META, TEACHERS[0], criterion=toys.criterion
  )
  for options, message in (
    ({'slot': 2}, r'slot=2: expected 0 \.\. 1'),
    ({'slot': 0, 'share': 2.0}, r'share=2\.0'),
    ({'slot': 0, 'temperature': 0.0}, r'temperature=0\.0'),
    ({'slot': 0, 'divide': 'entry'}, "divide='entry' .did you mean 'entries'"),
  ):
    with pytest.raises(ValueError, match=message):
      make(**options)
  with pytest.raises(ValueError, match="the student in slot 0 lacks 'post'"):
    make(slot=0)(stitch.Student(TEACHERS[0]), BATCH, toys.KEY)
  same = stitch.Adapter()
  with pytest.raises(ValueError, match="the student in slot 0 has 'pre'"):
    make(slot=0)(stitch.Student(TEACHERS[0], same, same), BATCH, toys.KEY)


def test_the_loss_of_an_ancestor_with_identity_maps_is_zero():
  ancestor = toys.network(0)
  same = stitch.Adapter(jnp.eye(3), jnp.zeros(3))
  learner = stitch.Auxiliary(ancestor, (same,) * 4)
  loss = stitch.dense_distillation(ancestor, temperature=2.0)
  value, gradient = jax.jit(jax.value_and_grad(loss))(learner, BATCH, toys.KEY)
  assert value == 0
  for leaf in jax.tree.leaves(gradient):
    np.testing.assert_allclose(leaf, 0, atol=1e-15)


def test_the_loss_of_an_auxiliary_network():
  ancestor, small = toys.network(0), toys.network(10, depth=2, width=2)
  learner = stitch.auxiliary(small, ancestor, BATCH[0], key=toys.KEY)
  assert [m.weight.shape for m in learner.maps] == [(2, 3), (2, 3)]
  far, near = (stitch.features(m, X) for m in (ancestor, small))
  outer = [
    np.square(near[p] @ m.weight + m.bias[None] - far[2 * p]).mean()
    for p, m in enumerate(learner.maps, 1)
  ]
  p, q = (softmax(np.asarray(stitch.apply(m, X))) for m in (ancestor, small))
  want = (p * np.log(p / q)).sum(-1).mean() + 0.5 * np.mean(outer)
  loss = stitch.dense_distillation(ancestor, blocks=0.5)
  np.testing.assert_allclose(
    loss(learner, BATCH[0], toys.KEY), want, rtol=1e-10
  )
  _, losses = training.run(
    loss, learner, BATCH, optimizer=optax.sgd(0.05), steps=60, batch_size=6
  )
  assert losses[-1] < losses[0] / 2


def test_composed_maps_and_least_squares_agree_on_linear_images():
  random = np.random.RandomState(0)
  common = (random.randn(50, 2) + 1) @ random.randn(2, 6)  # of rank 2
  a, b = common @ random.randn(6, 3) + 1, common @ random.randn(6, 4)
  to_common = [_adapter.Adapter(*affine(x, common)) for x in (a, b)]
  got = stitch.compose_maps(*to_common)
  np.testing.assert_allclose(stitch.apply_adapter(got, a), b, atol=1e-9)
  weight, bias = affine(a, b)
  np.testing.assert_allclose(a @ weight + bias[None], b, atol=1e-9)


def test_narrow_maps_are_composed_in_float32():
  draw = np.random.default_rng(0).normal
  maps = [
    stitch.Adapter(jnp.asarray(draw(size=(n, 4)), jnp.bfloat16), None)
    for n in (5, 3)
  ]
  got = stitch.compose_maps(*maps)
  assert got.weight.dtype == got.bias.dtype == jnp.bfloat16
  first, second = (np.asarray(x.weight, np.float64) for x in maps)
  wanted = first @ np.linalg.pinv(second)
  error = np.abs(np.asarray(got.weight, np.float64) - wanted)
  assert error.max() < 2**-8 * np.abs(wanted).max()


def affine(x, y):
  """Minimum norm least squares between centred features."""
  weight = np.linalg.pinv(x - x.mean(0)) @ (y - y.mean(0))
  return jnp.asarray(weight), jnp.asarray(y.mean(0) - x.mean(0) @ weight)


def test_a_descendant_joins_instances_by_a_composed_map():
  ancestor = toys.network(0)
  pool = {
    name: stitch.auxiliary(
      toys.network(seed, depth, width),
      ancestor,
      BATCH[0],
      key=jax.random.key(seed),
    )
    for name, seed, depth, width in (('s', 10, 2, 2), ('m', 20, 4, 3))
  }
  pieces = [stitch.Piece('s', 0, 1), stitch.Piece('m', 2, 4)]
  family, route = stitch.build_descendant(pool, pieces)
  stitch.check_route(family, route, BATCH[0])
  assert route.adapters == ('s_1_m_2',)
  small, middle = pool['s'].model, pool['m'].model
  h = stitch.features(small, X)[1]
  link = stitch.compose_maps(pool['s'].maps[0], pool['m'].maps[1])
  h = stitch.advance(middle, stitch.apply_adapter(link, h), 2, 4)
  want = middle.head(middle.params['head'], h)
  got = stitch.apply(stitch.materialize(family, route), X)
  np.testing.assert_allclose(got, want, rtol=1e-12)
  for wrong, message in (
    (pieces[::-1], "joins 's' at 0: it has maps at 1 .. 2"),
    ([stitch.Piece('m', 0, 2), stitch.Piece('s', 1, 2)], 'narrower than'),
    ([stitch.Piece('x', 0, 2), pieces[1]], "joins 'x' at 2"),
  ):
    with pytest.raises(ValueError, match=message):
      stitch.build_descendant(pool, wrong)
  with pytest.raises(ValueError, match='2 blocks and an ancestor of 1'):
    stitch.auxiliary(small, toys.network(0, depth=1), BATCH[0], key=toys.KEY)
  with pytest.raises(ValueError, match=r'shapes \[2, 3\] and None'):
    stitch.compose_maps(pool['s'].maps[0], stitch.Adapter())
