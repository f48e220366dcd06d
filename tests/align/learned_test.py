"""Learned matching: gradients, exact elements, planted pairs, selection."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

from tests.align.gauged import draw, net, permuted, SYMMETRY, X
from wsl import align, tree
from wsl.align._gauges import elements
from wsl.align._learned import chart, steps, straight_through, tangents

RNG = np.random.default_rng(0)
F_ = align.Factor
F, M = draw(1), draw(2)
TARGET = net(F, X, np)
(SCALE,), (SIGN,), (ROTATION,), (QK, VO) = (
  [a.name for a in SYMMETRY.actions if a.kind == kind]
  for kind in ('scale', 'sign', 'rotation', 'linear')
)
UNITS, HEADS, INNER = 'a:1', 'k:1', 'd:0'


TRACES = []


def loss_fn(p, x):
  TRACES.append(x)
  return jnp.mean(jnp.square(net(p, x) - TARGET))


def by_hand(p, e):
  """Moves a model by matrices: permutations, then actions."""
  one = lambda n, size: e.get(n, np.eye(size))
  scale, sign = e.get(SCALE, np.ones(5)), e.get(SIGN, np.ones(5))
  into, out = one(UNITS, 5) * scale[:, None], one(UNITS, 5) / scale[:, None]
  inner, heads = one(INNER, 5) * sign[:, None], one(HEADS, 2)
  r, a, c = one(ROTATION, 4), one(QK, 3), one(VO, 3)
  a, c = (np.broadcast_to(x, (2, 3, 3)) for x in (a, c))
  dual = lambda x: np.linalg.inv(x).transpose(0, 2, 1)
  qkv = lambda w, g: np.einsum('ij,jhu,gh,gvu->igv', out, w, heads, g)
  moved = {'a': p['a'] @ into.T, 'b': into @ p['b'], 'e': out @ p['e'] @ r.T}
  moved |= {'q': qkv(p['q'], dual(a)), 'k': qkv(p['k'], a)}
  moved |= {'v': qkv(p['v'], dual(c))}
  moved['o'] = np.einsum('gvu,gh,hud,ed->gve', c, heads, p['o'], r)
  moved |= {'u': r @ p['u'] @ inner.T, 'd': inner @ p['d'] @ r.T}
  return moved | {'w': r @ p['w']}


def loss_by_hand(fixed, moving, weight):
  ends = by_hand(F, fixed), by_hand(M, moving)
  between = {n: (1 - weight) * ends[0][n] + weight * ends[1][n] for n in F}
  return np.mean(np.square(net(between, X, np) - TARGET))


def record():
  """A transformation whose state is the last gradient, and a loss near it."""
  zeros = lambda params: jax.tree.map(jnp.zeros_like, params)
  init = lambda params: (zeros(params), jnp.zeros(()))

  def update(gradient, state, params, *, value_fn, **extra):
    del state, extra
    after = jax.tree.map(lambda x, g: x - 0.2 * g, params, gradient)
    return gradient, (gradient, value_fn(after))

  return optax.GradientTransformationExtraArgs(init, update)


ADAM = optax.chain(record(), optax.adam(0.03))
GIVEN = {
  'symmetry': SYMMETRY,
  'key': jax.random.key(0),
  'loss_fn': loss_fn,
  'optimizer': ADAM,
}


def stepped(name, table, x):
  """Returns a table, or the matrix of a latent, after a step of any size."""
  if name in (UNITS, HEADS, INNER, SIGN):
    return table + x
  if name == SCALE:
    return np.exp(x) * table
  x = (x - np.swapaxes(x, -1, -2)) / 2 if name == ROTATION else x
  return scipy.linalg.expm(x) @ table


def slope(ends, end, name, tangent, weight):
  """Returns the derivative of the loss along a tangent, by differences."""

  def loss(t):
    moved = {name: stepped(name, ends[end][name], t * tangent)}
    both = ends | {end: ends[end] | moved}
    return loss_by_hand(both['fixed'], both['moving'], weight)

  return (loss(1e-5) - loss(-1e-5)) / 2e-5


def begin(models, initial, optimizer, where):
  names = tuple(n for n in models['fixed'] if n != 'n')
  return steps.begin(
    models,
    initial,
    optimizer,
    chart=where,
    names=names,
    solver=align.assign_scipy,
  )


def test_the_step_against_finite_differences_of_every_kind():
  where = chart.of(SYMMETRY, align.GAUGES, both=True)
  assert {g.name for g in where.symmetry.groups} == {UNITS, HEADS, INNER}
  g, h = (align.random(SYMMETRY, jax.random.key(i)) for i in (1, 2))
  smooth = (SCALE, ROTATION, QK, VO)
  both = {n: np.asarray(h[n]) for n in smooth}
  models = {'fixed': F, 'moving': M}
  state = begin(models, g, ADAM, where)
  state.tables['fixed'].update(elements.with_duals(SYMMETRY, both, np))
  turn = lambda n: np.roll(np.arange(n, dtype=np.int32), 1)
  order = {UNITS: turn(5), INNER: turn(5), HEADS: turn(2)}
  value, after = steps.train_step(
    state, models, order, X, np.asarray(0.4),
    chart=where, loss_fn=loss_fn, optimizer=ADAM,
  )  # fmt: skip
  hard = {n: np.eye(len(x))[x] for n, x in order.items()}
  ends = {
    'fixed': {n: np.asarray(h[n]) for n in smooth},
    'moving': hard | {n: np.asarray(g[n]) for n in (*smooth, SIGN)},
  }
  wanted = loss_by_hand(ends['fixed'], ends['moving'], 0.4)
  np.testing.assert_allclose(value, wanted, 1e-12)
  (gradients, near), _ = after.optimizer
  moved = {}
  for end, tables in ends.items():
    gradient = gradients[end]
    assert set(gradient) == set(tables)
    for name, table in tables.items():
      tangent = RNG.normal(size=gradient[name].shape)
      found = np.sum(gradient[name] * tangent)
      wanted = slope(ends, end, name, tangent, 0.4)
      np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
      # The first step of Adam; latents add it.
      change = np.asarray(gradient[name])
      moved[end, name] = stepped(name, table, -0.2 * change)
      change = -0.03 * change / (np.abs(change) + 1e-8)
      latent = name not in smooth
      before = np.asarray(state.latents[name]) if latent else table
      found = after.latents[name] if latent else after.tables[end][name]
      wanted = stepped(name, before, change)
      np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-13)
  # The loss of a line search, at elements of the group.
  both = [{n: moved[end, n] for n in tables} for end, tables in ends.items()]
  np.testing.assert_allclose(near, loss_by_hand(*both, 0.4), 1e-11)


def test_a_step_is_limited_and_stays_in_the_group():
  rng = np.random.default_rng(1)
  big = {ROTATION: 40 * rng.normal(size=(4, 4)), SCALE: np.asarray([9.0] * 5)}
  big[VO] = -50 * rng.normal(size=(2, 3, 3))
  start = elements.identity_actions(SYMMETRY, big)
  start = elements.with_duals(SYMMETRY, start, np)
  found = jax.jit(tangents.retract, static_argnums=2)(start, big, SYMMETRY)
  r, a = np.asarray(found[ROTATION]), np.asarray(found[VO])
  np.testing.assert_allclose(r @ r.T, np.eye(4), atol=1e-14)
  assert np.abs(np.angle(np.linalg.eigvals(r))).max() <= 1
  singular = np.linalg.svd(a, compute_uv=False)
  assert np.exp(-1) < singular.min() < 0.9
  assert 1.4 < singular.max() < np.exp(1)
  dual = found[elements.dual_of(VO)]
  np.testing.assert_allclose(dual, np.linalg.inv(a).transpose(0, 2, 1), 1e-12)
  np.testing.assert_allclose(found[SCALE], np.exp(np.ones(5)), 1e-14)
  # Under LayerNorm the mean stays.
  actions = [a._replace(ones=a.name == ROTATION) for a in SYMMETRY.actions]
  layer_norm = dataclasses.replace(SYMMETRY, actions=tuple(actions))
  start = {ROTATION: np.eye(4)}
  r = tangents.retract(start, {ROTATION: big[ROTATION]}, layer_norm)[ROTATION]
  np.testing.assert_allclose(r @ r.T, np.eye(4), atol=1e-14)
  np.testing.assert_allclose(r.sum(1), np.ones(4), atol=1e-14)
  assert np.abs(r - np.eye(4)).max() > 0.1


def planted():
  """A moved copy, and an element that restores it but for small errors."""
  g, rng = align.random(SYMMETRY, jax.random.key(5)), np.random.default_rng(0)
  error = {ROTATION: stepped(ROTATION, np.eye(4), rng.normal(size=(4, 4)) / 4)}
  error |= {n: np.eye(3) + rng.normal(size=(2, 3, 3)) / 8 for n in (QK, VO)}
  error |= {SCALE: np.exp(rng.normal(size=5) / 4)}
  wrong = align.compose(
    align.invert(g, symmetry=SYMMETRY),
    align.identity(SYMMETRY) | error,
    symmetry=SYMMETRY,
  )
  return permuted(F, g), wrong


def test_planted_errors_are_undone_and_functions_are_kept():
  moving, wrong = planted()
  before = len(TRACES)
  found = align.learned_matching(
    F, moving, **GIVEN, initial=wrong, batches=[X] * 200
  )
  assert len(TRACES) <= before + 2  # one program, whatever the steps
  assert found.step == 200
  assert found.held_out.size == 0
  assert np.mean(found.losses[-20:]) < 1e-3 * found.losses[0]
  a, b = permuted(F, found.fixed), permuted(moving, found.moving)
  for moved in (a, b):
    np.testing.assert_allclose(net(moved, X, np), TARGET, rtol=0, atol=1e-10)
  # A wrong power changes the function of an end.
  scale, *others = SYMMETRY.actions
  powers = tuple(p._replace(power=1.0) for p in scale.powers)
  actions = (scale._replace(powers=powers), *others)
  bad = dataclasses.replace(SYMMETRY, actions=actions)
  bad = net(permuted(moving, found.moving, bad), X, np)
  assert np.abs(bad - TARGET).max() > 1e-3
  # The path depends on the relative element alone.
  unmove = align.invert(found.fixed, symmetry=SYMMETRY)
  relative = align.compose(found.moving, unmove, symmetry=SYMMETRY)
  other = permuted(moving, relative)
  mix = lambda x, y: {n: 0.3 * x[n] + 0.7 * y[n] for n in x}
  wanted = net(mix(F, other), X, np)
  np.testing.assert_allclose(net(mix(a, b), X, np), wanted, 1e-9)


def test_held_out_batches_select_the_step():
  moving, wrong = planted()
  g = align.learned_matching(
    F, moving, **GIVEN, initial=wrong, batches=[X] * 25, held_out=[X]
  )
  assert g.held_out.shape == (4,)
  assert g.step == (0, 10, 20, 25)[np.argmin(g.held_out)]
  exact = align.identity(SYMMETRY)
  g = align.learned_matching(
    F, F, **GIVEN, initial=exact, batches=[0.1 * X] * 3, held_out=[X]
  )
  assert g.step == 0
  assert g.held_out[0] < 1e-25 < g.held_out[1]
  moved = permuted(F, g.moving)
  assert all((moved[n] == F[n]).all() for n in F)


MLP = align.Symmetry(
  factors=(F_('a:0', 3, 'an input'), F_('a:1', 6), F_('b:1', 2, 'an output')),
  axes=(
    ('a', ((('a:0',),), (('a:1',),))),
    ('b', ((('a:1',),), (('b:1',),))),
    ('n', ()),
  ),
)


def mlp_loss(p, x):
  return jnp.mean(jnp.square(jax.nn.relu(x @ p['a']) @ p['b'] - 1))


def mlp_params(seed, dtype=jnp.float64):
  draw = np.random.default_rng(seed)
  one = lambda *shape: jnp.asarray(draw.normal(size=shape), dtype)
  return {'a': one(3, 6), 'b': one(6, 2), 'n': jnp.asarray(seed)}


def test_latents_change_as_the_gains_of_straight_through_do():
  # Straight-through matching keeps a target model, learned matching the matrix
  # of gains to it: for one group, a step of SGD changes both alike.
  fixed, moving = mlp_params(1), mlp_params(2)
  where = chart.of(MLP, ('permutation',), both=False)
  start, sgd = align.identity(MLP), optax.sgd(0.2)
  models = {'fixed': fixed, 'moving': moving}
  state = begin(models, {}, sgd, where)
  value, after = steps.train_step(
    state, models, start, X, np.asarray(0.5),
    chart=where, loss_fn=mlp_loss, optimizer=sgd,
  )  # fmt: skip
  floats = straight_through._float_leaves(fixed)
  midpoint = straight_through._midpoint(fixed, moving)
  wanted, target, _ = straight_through._train_step(
    fixed, sgd.init(floats), midpoint, X, loss_fn=mlp_loss, optimizer=sgd
  )
  np.testing.assert_allclose(value, wanted, 1e-14)
  change = {n: np.asarray(target[n] - fixed[n]) for n in 'ab'}
  gains = change['a'].T @ moving['a'] + change['b'] @ moving['b'].T
  found = after.latents['a:1'] - state.latents['a:1']
  np.testing.assert_allclose(found, gains, atol=1e-14)
  # They start as the gains with the fixed model, scaled and raised.
  gains = fixed['a'].T @ moving['a'] + fixed['b'] @ moving['b'].T
  gains = gains / np.abs(np.diagonal(gains)).mean()
  raised = np.asarray(state.latents['a:1'] - gains)
  np.testing.assert_allclose(raised, raised[0, 0] * np.eye(6), atol=1e-13)
  assert raised[0, 0] > 0


ODD = align.Action(
  name='sign a:1',
  kind='sign',
  factor='a:1',
  powers=(
    align.Power('a', 1, 0, 0, 1.0),
    align.Power('b', 0, 0, 0, 1.0),
  ),
)
MANY = np.random.default_rng(9).normal(size=(64, 3))


def odd(p, x):
  return jnp.tanh(x @ p['a']) @ p['b']


@pytest.mark.parametrize(
  ('kind', 'error'),
  [
    ('permutation', {'a:1': np.asarray([1, 0, 2, 3, 4, 5])}),
    ('sign', {'sign a:1': np.asarray([1.0, 1, -1, 1, 1, 1])}),
  ],
)
def test_a_wrong_permutation_or_sign_is_undone(kind, error):
  # Below 1/2 the fixed model decides between units that are confused.
  fixed = mlp_params(5)
  symmetry = dataclasses.replace(MLP, actions=(ODD,))
  moving = permuted(fixed, align.identity(symmetry) | error, symmetry)
  target = odd(fixed, MANY)
  found = align.learned_matching(
    fixed,
    moving,
    symmetry=symmetry,
    key=jax.random.key(0),
    loss_fn=lambda p, x: jnp.mean(jnp.square(odd(p, x) - target)),
    batches=[MANY] * 60,
    gauges=(kind,),
    path=(0.2, 0.5),
    initial=align.identity(symmetry),
    optimizer=optax.adam(0.03),
  )
  assert found.losses[0] > 0.01
  assert found.losses[-1] < 1e-25
  for name, table in error.items():
    np.testing.assert_array_equal(found.moving[name], table)


def rope(x):
  """Turns pairs of entries by angles that grow with the position."""
  x = x.reshape(*x.shape[:-1], 2, -1)
  angle = np.outer(np.arange(x.shape[0]), [1.0, 0.3])[:, None]
  cos, sin = np.cos(angle), np.sin(angle)
  a, b = x[..., 0, :], x[..., 1, :]
  return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def test_phases():
  def attend(p, x):
    q, k = (rope(jnp.einsum('td,dhu->thu', x, p[n])) for n in 'qk')
    scores = jax.nn.softmax(jnp.einsum('thu,shu->hts', q, k))
    return jnp.einsum('hts,sd->td', scores, x)

  sizes = dict.fromkeys('qk', (3, 2, 4))
  rng = np.random.default_rng(0)
  fixed = {n: rng.normal(size=s) for n, s in sizes.items()}
  symmetry = align.find_symmetry(attend, fixed, X)
  (phase,) = [a for a in symmetry.actions if a.kind == 'phase']
  target = attend(fixed, X)
  g = align.random(symmetry, jax.random.key(3))
  moving = permuted(fixed, g, symmetry)
  back = align.invert(g, symmetry=symmetry)
  # A step multiplies complex numbers by exp(x + i y).
  error = rng.normal(size=(2, 2, 2)) / 3
  table = {phase.name: np.asarray(back[phase.name])}
  wrong = tangents.retract(table, {phase.name: error}, symmetry)
  as_complex = lambda x: np.asarray(x) @ np.asarray([1, 1j])
  wanted = as_complex(table[phase.name]) * np.exp(as_complex(error))
  np.testing.assert_allclose(as_complex(wrong[phase.name]), wanted, 1e-13)
  found = align.learned_matching(
    fixed,
    moving,
    symmetry=symmetry,
    key=jax.random.key(0),
    loss_fn=lambda p, x: jnp.mean(jnp.square(attend(p, x) - target)),
    batches=[X] * 150,
    both=False,
    initial=back | wrong,
    optimizer=optax.adam(0.03),
  )
  assert found.losses[-1] < 1e-4 * found.losses[0]
  moved = attend(permuted(moving, found.moving, symmetry), X)
  np.testing.assert_allclose(moved, target, rtol=0, atol=1e-10)
  ratio = as_complex(found.moving[phase.name]) / as_complex(back[phase.name])
  np.testing.assert_allclose(np.angle(ratio), np.zeros((2, 2)), atol=0.1)
  unit = dataclasses.replace(symmetry, actions=(phase._replace(unit=True),))
  turned = tangents.retract(table, {phase.name: error}, unit)[phase.name]
  size = np.abs(as_complex(turned)), np.abs(as_complex(table[phase.name]))
  np.testing.assert_allclose(*size, 1e-13)


def test_bfloat16_leaves_and_integers():
  fixed, moving = (mlp_params(k, jnp.bfloat16) for k in (3, 4))
  seen = []

  def loss(p, x):
    seen.append((p['a'].dtype, p['n'].dtype))
    return mlp_loss(tree.cast(p, 'float32'), x)

  found = align.learned_matching(
    fixed,
    moving,
    symmetry=MLP,
    key=jax.random.key(0),
    loss_fn=loss,
    batches=[np.float32(X)] * 2,
  )
  assert set(seen) == {(np.dtype(jnp.bfloat16), fixed['n'].dtype)}
  assert sorted(found.moving['a:1'].tolist()) == [*range(6)]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'gauges': ('rotate',)}, r"gauges has 'rotate'.*did you mean 'rotation'"),
    ({'gauges': ()}, 'nothing to learn'),
    ({'path': (0.6, 0.4)}, r'path is \(0.6, 0.4\), expected weights 0 <= a'),
    ({'every': 0}, 'every=0: expected at least 1'),
    ({'batches': []}, 'no batches given'),
    ({'batches': [np.nan * X]}, 'the loss of step 0 is nan'),
    ({'initial': {}}, "initial lacks the group 'a:1'"),
    ({'moving': M | {'b': np.ones(6)}}, "moving: leaf 'b' has shape"),
  ],
)
def test_arguments_are_checked(change, message):
  given = {'moving': M, 'batches': [X], 'initial': align.identity(SYMMETRY)}
  with pytest.raises(ValueError, match=f'^learned_matching: .*{message}') as e:
    align.learned_matching(F, **GIVEN | given | change)
  assert len(str(e.value)) <= 200
