"""Fitted adapters of a family, and its joint training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.stitch import training
from wsl import models, stitch, train

DEPTHS = {'s': 3, 'm': 3, 'l': 3}
WIDTHS = {'s': 2, 'm': 3, 'l': 4}
INPUTS = 5

features = jax.jit(stitch.features)
apply = jax.jit(stitch.apply)


def embed(params, x):
  return x @ params


def block(params, h):
  """A residual block in the basis m."""
  plain = h @ params['inverse']
  return (plain + jnp.tanh(plain @ params['w'])) @ params['m']


def head(params, h):
  return h @ params


def network(seed, width, depth=3, basis=None):
  rng = np.random.default_rng(seed)
  basis = np.eye(width) if basis is None else basis
  inverse = np.linalg.pinv(basis)
  tile = lambda x: jnp.asarray(np.tile(x, (depth, 1, 1)))
  params = {
    'embed': jnp.asarray(rng.normal(size=(INPUTS, width)) @ basis),
    'blocks': {
      'w': jnp.asarray(rng.normal(size=(depth, width, width))),
      'm': tile(basis),
      'inverse': tile(inverse),
    },
    'head': jnp.asarray(inverse @ rng.normal(size=(width, 2))),
  }
  return stitch.Segmented(params, embed, block, head)


def family_of(names=DEPTHS):
  return {name: network(i, WIDTHS[name]) for i, name in enumerate(names)}


def data(count=3, size=8):
  rng = np.random.default_rng(9)
  return [jnp.asarray(rng.normal(size=(size, INPUTS))) for _ in range(count)]


def solve(x, y):
  """Weight and bias of least squares, by a dense pseudo-inverse."""
  whole = np.linalg.pinv(np.hstack([x, np.ones((len(x), 1))])) @ y
  return whole[:-1], whole[-1]


def rows(nets, batches, joint):
  """Returns all feature rows on both sides of a joint."""
  x, y = (
    np.concatenate([np.asarray(features(nets[name], b)[p]) for b in batches])
    for name, p in (joint[:2], joint[2:])
  )
  return x, y


def served(routes):
  """Returns the joints of each adapter."""
  found = {}
  for route in routes:
    for name, joint in zip(route.adapters, stitch.joints(route), strict=True):
      found.setdefault(name, {})[joint] = None
  return found


def test_adapters_equal_dense_least_squares():
  nets, batches = family_of('sl'), data()
  routes = stitch.sn_net_routes({'s': 3, 'l': 3})
  moments = stitch.joint_moments(nets, routes, batches)
  mean = stitch.fit_joints(moments, routes)
  pooled = stitch.fit_joints(moments, routes, shared='pooled')
  assert set(mean) == set(pooled) == set(served(routes))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10)
  for name, joints in served(routes).items():
    sides = [rows(nets, batches, joint) for joint in joints]
    assert len(sides) > 1
    parts = [solve(x, y) for x, y in sides]
    weight, bias = (np.mean(part, 0) for part in zip(*parts, strict=True))
    close(mean[name].weight, weight)
    close(mean[name].bias, bias)
    whole = (np.concatenate(x) for x in zip(*sides, strict=True))
    weight, bias = solve(*whole)
    close(pooled[name].weight, weight)
    close(pooled[name].bias, bias)


def test_one_function_in_two_bases_is_stitched_exactly():
  basis = np.random.default_rng(3).normal(size=(3, 3))
  nets = {'s': network(1, 3), 'l': network(1, 3, basis=basis)}
  routes = stitch.sn_net_routes({'s': 3, 'l': 3}, window=3, deeper=False)
  exact = [r for r in routes if r.pieces[0].stop == r.pieces[-1].start]
  family = stitch.fit_family(nets, exact, data())
  x = data(1)[0]
  want = apply(nets['l'], x)
  for route in exact:
    found = apply(stitch.materialize(family, route), x)
    np.testing.assert_allclose(found, want, rtol=1e-10, atol=1e-10)


def test_a_self_stitch_keeps_the_function():
  model = network(1, 3)
  routes = [
    stitch.Route(
      (stitch.Piece('a', 0, j + 1), stitch.Piece('a', j + 1, 3)), (f'a_{j}',)
    )
    for j in range(3)
  ]
  for kind in ('affine', 'orthogonal', 'identity'):
    family = stitch.fit_family({'a': model}, routes, data(), kind=kind)
    x = data(1)[0]
    for route in routes:
      found = apply(stitch.materialize(family, route), x)
      want = apply(model, x)
      np.testing.assert_allclose(found, want, rtol=1e-10, atol=1e-10)


def test_low_rank_starts_at_least_squares_with_a_frozen_weight():
  nets = family_of('sl')
  routes = stitch.sn_net_v2_routes({'s': 3, 'l': 3})
  moments = stitch.joint_moments(nets, routes, data())
  plain = stitch.fit_joints(moments, routes)
  found = stitch.fit_joints(
    moments, routes, kind='low_rank', rank=2, key=jax.random.key(0)
  )
  assert len({tuple(a.down.ravel()[:4].tolist()) for a in found.values()}) == 5
  rng = np.random.default_rng(0)
  for name, adapter in found.items():
    x = jnp.asarray(rng.normal(size=(7, len(adapter.weight))))
    total = lambda a, x=x: jnp.sum(stitch.apply_adapter(a, x))
    want = stitch.apply_adapter(plain[name], x)
    np.testing.assert_allclose(
      stitch.apply_adapter(adapter, x), want, rtol=1e-12, atol=1e-12
    )
    grad = jax.grad(total)(adapter)
    assert not np.asarray(grad.weight).any()
    assert np.asarray(grad.up).any()
    assert np.asarray(grad.bias).any()
    assert not stitch.trainable(adapter).weight


def test_only_parts_on_the_route_have_gradients():
  nets = family_of('sl')
  routes = stitch.sn_net_v2_routes({'s': 3, 'l': 3})
  family = stitch.fit_family(nets, routes, data())
  apply_fn, table = stitch.program(family, routes)
  batch = (data(1)[0], jnp.zeros(8, int))

  @jax.jit
  def grad(probabilities):
    loss = stitch.random_route(apply_fn, table)
    bound = jax.tree_util.Partial(loss.func, *loss.args[:2], probabilities)
    return jax.grad(bound)(family, batch, jax.random.key(0))

  for i, route in enumerate(routes):
    one = jnp.where(jnp.arange(len(routes)) == i, 0.0, -jnp.inf)
    found = grad(one.astype(jnp.float32))
    on = {
      (piece.model, b)
      for piece in route.pieces
      for b in range(piece.start, piece.stop)
    }
    for name, model in found.models.items():
      moved = np.abs(np.asarray(model.params['blocks']['w'])).max((1, 2)) > 0
      assert moved.tolist() == [(name, b) in on for b in range(3)]
      embeds = np.asarray(model.params['embed']).any()
      assert embeds == (route.pieces[0].model == name)
      ends = np.asarray(model.params['head']).any()
      assert ends == (route.pieces[-1].model == name)
    for name, adapter in found.adapters.items():
      assert np.asarray(adapter.weight).any() == (name in route.adapters)


def test_a_stitched_transformer_has_the_final_normalisation():
  """The released code skips it: its head is the classifier alone."""
  views = {}
  for name, width in (('s', 2), ('l', 4)):
    vit = models.ViT(outputs=2, patch=2, width=width, depth=2, heads=1)
    x = jnp.zeros((1, 4, 4, 1))
    shapes = jax.eval_shape(vit.init, jax.random.key(0), x)['params']
    params = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    views[name] = stitch.Segmented(*models.segments(vit, params))
  adapters = {'s_l_0': stitch.Adapter(jnp.zeros((2, 4)), jnp.zeros(4))}
  route = stitch.sn_net_routes({'s': 2, 'l': 2})[2]
  found = stitch.materialize(stitch.Family(views, adapters), route)
  assert set(found.params['head']) == {'norm', 'output'}
  assert found.head == views['l'].head


def test_flops_add_up():
  nets, routes = family_of(), stitch.sn_net_routes(DEPTHS)
  family = stitch.fit_family(nets, routes, data())
  costs = stitch.cost(family, jax.ShapeDtypeStruct((1, INPUTS), jnp.float64))
  for route in routes:
    first, last = route.pieces[0], route.pieces[-1]
    want = 2 * INPUTS * WIDTHS[first.model] + 2 * WIDTHS[last.model] * 2
    for piece in route.pieces:
      want += (piece.stop - piece.start) * 3 * 2 * WIDTHS[piece.model] ** 2
    if route.adapters:
      want += 2 * WIDTHS[first.model] * WIDTHS[last.model]
    assert stitch.route_cost(costs, route).flops == want


def test_joint_training_compiles_once_and_learns():
  nets, routes = family_of('sl'), stitch.sn_net_routes({'s': 3, 'l': 3})
  family = stitch.fit_family(nets, routes, data())
  apply_fn, table = stitch.program(family, routes)
  traces = []

  def counted(family, row, x):
    traces.append(0)
    return apply_fn(family, row, x)

  x = jnp.concatenate(data(8))
  examples = (x, (x[:, 0] > 0).astype(int))
  optimizer = train.adamw(0.02, steps=80, warmup=0.0)
  loss = stitch.random_route(counted, table)
  _, losses = training.run(
    loss, family, examples, optimizer=optimizer, steps=80, batch_size=32
  )
  assert len(traces) == 1
  assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def tokens(params, x):
  """Embeds inputs as one token for each row of the parameters."""
  places = jnp.arange(params.shape[0], dtype=x.dtype)[None, :, None]
  return jnp.einsum('bi,pid->bpd', x, params) * (1 + jnp.sin(places))


def test_features_of_other_resolutions_are_resized():
  nets = {}
  for name, places, width in (('s', 4, 2), ('l', 9, 3)):
    model = network(places, width)
    params = {**model.params, 'embed': jnp.ones((places, INPUTS, width))}
    nets[name] = stitch.Segmented(params, tokens, block, head)
  routes = stitch.sn_net_routes({'s': 3, 'l': 3}, window=1)
  family = stitch.fit_family(nets, routes, data())
  assert {a.grid for a in family.adapters.values()} == {(9,)}
  for route in routes:
    stitch.check_route(family, route, data(1)[0])


ERRORS = [
  ({'shared': 'meen'}, "shared='meen': expected 'mean', 'pooled'"),
  ({'kind': 'orthogonal'}, "adapter 's_m_0' serves 4 joints, and a mean of"),
  (
    {'kind': 'low_rank'},
    r'low_rank .*=64 and key=None: expected .* and a key',
  ),
  ({'ridge': -1.0}, "adapter 's_m_0': .* expected ridge >= 0"),
]


@pytest.mark.parametrize(('arguments', 'message'), ERRORS)
def test_errors_of_hyperparameters(arguments, message):
  routes = stitch.sn_net_routes(DEPTHS)
  with pytest.raises(ValueError, match=message):
    stitch.fit_family(family_of(), routes, data(), **arguments)


@pytest.mark.parametrize(('arguments', 'message'), ERRORS[:3])
def test_hyperparameters_are_checked_before_any_batch_is_read(
  arguments, message
):
  routes = stitch.sn_net_routes(DEPTHS)
  batches = (pytest.fail('a batch is read') for _ in range(1))
  with pytest.raises(ValueError, match=message):
    stitch.fit_family(family_of(), routes, batches, **arguments)


def test_errors_of_routes_and_data():
  nets, routes = family_of(), stitch.sn_net_routes(DEPTHS)
  with pytest.raises(ValueError, match='no route has a stitch'):
    stitch.fit_family(nets, routes[:3], data())
  with pytest.raises(ValueError, match='joint_moments: no batches given'):
    stitch.fit_family(nets, routes, [])
  with pytest.raises(ValueError, match="no model 'l'"):
    stitch.fit_family({n: nets[n] for n in 'sm'}, routes, data())
  deeper = stitch.sn_net_routes({'s': 3, 'm': 4})
  with pytest.raises(
    ValueError, match=r"no position 3 of 'm', which has 0 \.\. 2"
  ):
    stitch.fit_family({**nets, 'm': network(0, 3, 2)}, deeper, data())
