"""Routes: checks, materialized networks and costs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch

X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6)))


def linear(params, h):
  return h @ params


def residual(params, h):
  return h + jnp.tanh(h @ params['w'])


def network(width, depth, seed):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
  params = {
    'embed': draw(6, width),
    'blocks': {'w': draw(depth, width, width)},
    'head': draw(width, 2),
  }
  return stitch.Segmented(params, linear, residual, linear)


def adapter(d, e):
  rng = np.random.default_rng(7)
  return stitch.Adapter(
    jnp.asarray(rng.normal(size=(d, e))), jnp.asarray(rng.normal(size=e))
  )


A, B = network(3, 4, 0), network(5, 3, 1)
FAMILY = stitch.Family(
  {'small': A, 'large': B}, {'up': adapter(3, 5), 'down': adapter(5, 3)}
)


def route(*pieces, adapters=()):
  return stitch.Route(tuple(stitch.Piece(*p) for p in pieces), adapters)


UP = route(('small', 0, 2), ('large', 1, 3), adapters=('up',))
BACK = route(
  ('small', 0, 1), ('large', 1, 2), ('small', 3, 4), adapters=('up', 'down')
)


@pytest.mark.parametrize('p', range(5))
def test_a_self_route_with_an_identity_equals_the_network(p):
  same = stitch.Adapter(jnp.eye(3), jnp.zeros(3))
  family = stitch.Family({'a': A}, {'same': same})
  for name in ('same', ''):
    own = route(('a', 0, p), ('a', p, 4), adapters=(name,))
    stitch.check_route(family, own, X)
    found = stitch.apply(stitch.materialize(family, own), X)
    np.testing.assert_allclose(
      found, stitch.apply(A, X), rtol=1e-10, atol=1e-10
    )


def test_a_stitched_network_composes_its_parts():
  a, b = (np.asarray(m.params['blocks']['w']) for m in (A, B))
  h = np.asarray(X) @ np.asarray(A.params['embed'])
  h = h + np.tanh(h @ a[0])
  h = h + np.tanh(h @ a[1])
  up = FAMILY.adapters['up']
  h = h @ np.asarray(up.weight) + np.asarray(up.bias)
  h = h + np.tanh(h @ b[1])
  h = h + np.tanh(h @ b[2])
  expected = h @ np.asarray(B.params['head'])
  found = stitch.materialize(FAMILY, UP)
  assert (found.depth, found.stacked) == (5, False)
  np.testing.assert_allclose(stitch.apply(found, X), expected, rtol=1e-10)
  two = route(('a', 0, 2), ('b', 1, 3), adapters=('up',))
  other = stitch.stitch(A, B, route=two, adapters={'up': up})
  chex.assert_trees_all_equal(other, found)


def test_materialize_is_differentiable():
  def loss(family):
    return jnp.sum(stitch.apply(stitch.materialize(family, BACK), X))

  gradient = jax.jit(jax.grad(loss))(FAMILY)
  used = gradient.models['small'].params['blocks']['w']
  off = np.flatnonzero(np.abs(used).sum((1, 2)) == 0)
  np.testing.assert_array_equal(off, [1, 2])
  assert bool(jnp.any(gradient.adapters['down'].bias != 0))


def test_a_route_costs_the_sum_of_its_parts():
  costs = stitch.cost(FAMILY, jax.ShapeDtypeStruct((1, 6), jnp.float64))
  # 6 x 3 embed, blocks 3 x 3, up 3 x 5 + 5, blocks 5 x 5, head 5 x 2.
  parameters = 18 + 2 * 9 + 20 + 2 * 25 + 10
  assert stitch.route_cost(costs, UP) == (parameters, 2 * (parameters - 5))
  network = stitch.materialize(FAMILY, BACK)
  assert stitch.route_cost(costs, BACK).parameters == sum(
    leaf.size for leaf in jax.tree.leaves(network)
  )
  four = stitch.cost(FAMILY, jnp.ones((4, 6)))
  assert stitch.route_cost(four, UP) == (parameters, 8 * (parameters - 5))


def test_scans_conditionals_and_convolutions_are_counted():
  def conv(params, h):
    return jax.lax.conv_general_dilated(
      h, params, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  def repeated(params, h):
    many = lambda h: jax.lax.scan(
      lambda h, _: (jax.nn.relu(conv(params, h)), None), h, None, 3
    )[0]
    return jax.lax.cond(True, many, lambda h: conv(params, h), h)

  def loop(params, h):
    return jax.lax.while_loop(lambda h: jnp.all(h < 1), lambda h: h + 1, h)

  def model(block):
    params = {'embed': {}, 'blocks': (jnp.ones((3, 3, 2, 2)),), 'head': {}}
    return stitch.Segmented(params, lambda p, x: x, (block,), lambda p, h: h)

  images = jnp.ones((1, 4, 5, 2))
  for block, times in ((conv, 1), (repeated, 3)):
    costs = stitch.cost(stitch.Family({'a': model(block)}, {}), images)
    assert costs.blocks['a'] == ((36, times * 2 * 20 * 36),)
    assert costs.embed['a'] == (0, 0)
  with pytest.raises(ValueError, match='while loop of unknown length'):
    stitch.cost(stitch.Family({'a': model(loop)}, {}), images)


BAD = {
  'no piece': (route(), 'without pieces'),
  'missing adapter': (
    route(('small', 0, 1), ('large', 1, 3)),
    "2 pieces with 0 adapters: .*'' for none",
  ),
  'unknown adapter': (
    route(('small', 0, 1), ('large', 1, 3), adapters=('upp',)),
    r"no adapter 'upp' in the family \(did you mean 'up'\?\)",
  ),
  'unknown model': (
    route(('smal', 0, 4)),
    r"piece 0: no model 'smal' in the family \(did you mean 'small'\?\)",
  ),
  'backwards': (
    route(('small', 0, 3), ('small', 2, 4), adapters=('',)),
    r"piece 1 \('small', 2\.\.4\): runs backwards, an earlier piece of 'small' "
    'stops at 3',
  ),
  'backwards later': (
    route(
      ('small', 0, 3),
      ('large', 1, 2),
      ('small', 1, 4),
      adapters=('up', 'down'),
    ),
    r"piece 2 \('small', 1\.\.4\): runs backwards",
  ),
  'upside down': (
    route(('small', 3, 1)),
    'expected 0 <= start <= stop <= 4, the depth',
  ),
  'too deep': (route(('small', 0, 5)), 'stop <= 4'),
  'late start': (route(('small', 1, 4)), 'the first piece starts at 0'),
  'early stop': (route(('small', 0, 3)), 'the last piece ends at 4'),
  'no adapter between widths': (
    route(('small', 0, 1), ('large', 1, 3), adapters=('',)),
    r"piece 0 \('small' at 1\) to piece 1 \('large' at 1\): without adapter "
    r'\(2, 3\), the next block expects \(2, 5\): fit an adapter',
  ),
  'adapter of another input': (
    route(('small', 0, 1), ('large', 1, 3), adapters=('down',)),
    r"adapter 'down' does not accept \(2, 3\): ",
  ),
  'adapter of another output': (
    route(('small', 0, 1), ('small', 2, 4), adapters=('up',)),
    r"adapter 'up' returns \(2, 5\), the next block expects \(2, 3\)",
  ),
}


@pytest.mark.parametrize('name', BAD)
def test_errors_are_one_line_and_name_the_piece(name):
  which, message = BAD[name]
  with pytest.raises(ValueError, match=message) as caught:
    stitch.check_route(FAMILY, which, X)
  assert '\n' not in str(caught.value)


def test_valid_routes_pass():
  for which in (UP, BACK, route(('large', 0, 3))):
    stitch.check_route(FAMILY, which, X)
    stitch.check_route(FAMILY, which, jax.ShapeDtypeStruct((9, 6), X.dtype))
