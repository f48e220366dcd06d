"""Signs, scales, rotations and linear maps, found from the trace."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.gauges.networks import BY_HAND, shapes, values, X
from wsl import align


def dimension(symmetry):
  total = 0
  for action in symmetry.actions:
    *outer, n = symmetry.action_shape(action.name)
    if action.kind == 'linear':
      total += np.prod(outer[:-1], dtype=int) * n * n
    elif action.kind == 'rotation':
      n -= action.ones
      total += np.prod(outer[:-1], dtype=int) * n * (n - 1) // 2
    elif action.kind == 'scale':
      total += np.prod(outer, dtype=int) * n
  return total


@pytest.mark.parametrize('name', BY_HAND)
def test_gauges_by_hand(name):
  (apply, params, *inputs), wanted, size = BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, *inputs)
  kinds = collections.Counter(a.kind for a in symmetry.actions)
  assert dict(kinds) == wanted
  assert dimension(symmetry) == size
  key = jax.random.key(0)
  report = align.check(symmetry, apply, params, *inputs, key=key)
  assert report.error < 1e-11


@pytest.mark.parametrize(
  ('name', 'change'),
  [
    # A wrong power, signs of relu, a rotation that moves the mean.
    ('relu', {'powers': lambda a: tuple(p._replace(power=1.0) for p in a)}),
    ('relu', {'kind': lambda _: 'sign'}),
    ('layer norm stream', {'ones': lambda _: False}),
    ('rms stream', {'kind': lambda _: 'linear'}),
    (
      'attention',
      {'powers': lambda a: tuple(p._replace(power=1.0) for p in a)},
    ),
  ],
)
def test_a_wrong_action_is_noticed(name, change):
  (apply, params, *inputs), *_ = BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, *inputs)
  first, *rest = symmetry.actions
  ((field, fn),) = change.items()
  wrong = first._replace(**{field: fn(getattr(first, field))})
  symmetry = align.Symmetry(symmetry.factors, symmetry.axes, (wrong, *rest))
  key = jax.random.key(0)
  report = align.check(symmetry, apply, params, *inputs, key=key)
  assert report.errors[f'every {wrong.kind}'] > 1e-3


@pytest.mark.parametrize('name', ['rms stream', 'attention', 'scan', 'reglu'])
def test_elements_form_a_group(name):
  (apply, params, *inputs), *_ = BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, *inputs)
  assert align.from_json(align.to_json(symmetry)) == symmetry
  model = values(params)
  g, h = (align.random(symmetry, jax.random.key(i)) for i in (1, 2))
  move = lambda p, x: align.permute(p, x, symmetry=symmetry)
  close = lambda a, b: jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11), a, b
  )
  both = align.compose(g, h, symmetry=symmetry)
  close(move(model, both), move(move(model, g), h))
  back = align.invert(g, symmetry=symmetry)
  close(move(move(model, g), back), model)
  # A permutation alone is an element, and so is an action beside it.
  only = {k: g[k] for k in align.identity(symmetry)}
  acts = {k: x for k, x in g.items() if k not in only}
  close(
    move(move(model, only), align.identity(symmetry) | acts), move(model, g)
  )


@pytest.mark.parametrize(
  ('fixed', 'kinds'),
  [(np.eye(5), ['scale']), (np.eye(5) + 1, [])],
)
def test_an_identity_scales_by_opposite_powers(fixed, kinds):
  # relu(x a) (w + I) b: w becomes S w / S. A matrix of ones does not allow it.
  relu = jax.nn.relu
  apply = lambda p, x: relu(relu(x @ p['a']) @ (p['w'] + fixed)) @ p['b']
  params, key = shapes(a=(3, 5), w=(5, 5), b=(5, 2)), jax.random.key(0)
  symmetry = align.find_symmetry(apply, params, X)
  assert [a.kind for a in symmetry.actions] == kinds
  assert align.check(symmetry, apply, params, X, key=key).error < 1e-12


@pytest.mark.parametrize('act', [jax.nn.relu, lambda h: h])
@pytest.mark.parametrize(
  'mix',
  [
    lambda h, ones: jax.lax.scan(lambda c, _: (ones, c), h, length=2)[0],
    lambda h, ones: jax.lax.scan(lambda c, _: (ones, c), h, length=2)[1][1],
    lambda h, ones: jax.lax.cond(h[0, 0] > 0, lambda: h, lambda: ones),
    lambda h, ones: jax.lax.cond(h[0, 0] > 0, lambda: ones, lambda: h),
    lambda h, ones: ones.at[:2].set(h[:2]),
  ],
)
def test_constants_in_loops_and_branches_do_not_scale(mix, act):
  apply = lambda p, x: mix(act(x @ p['a']), jnp.ones((4, 5))) @ p['b']
  params, key = shapes(a=(3, 5), b=(5, 2)), jax.random.key(0)
  symmetry = align.find_symmetry(apply, params, X)
  # Rotations that fix the vector of ones are left where units are linear.
  left = [] if act is jax.nn.relu else ['rotation']
  assert [a.kind for a in symmetry.actions] == left
  for x in (X, -X):
    assert align.check(symmetry, apply, params, x, key=key).error < 1e-12


def test_signs_and_scales_by_literal_arrays():
  (apply, params, x), *_ = BY_HAND['reglu']
  symmetry = align.find_symmetry(apply, params, x)
  model = values(params)
  one = {a.name: jnp.ones(5) for a in symmetry.actions}
  for action in symmetry.actions:
    table = jnp.ones(5).at[2].set(-1.0 if action.kind == 'sign' else 3.0)
    g = align.identity(symmetry) | one | {action.name: table}
    moved = align.permute(model, g, symmetry=symmetry)
    for p in action.powers:
      at = (slice(None),) * p.axis + (2,)
      wanted = np.asarray(model[p.leaf]).copy()
      wanted[at] *= table[2] ** p.power
      np.testing.assert_allclose(moved[p.leaf], wanted, 1e-14)
    still = set(model) - {p.leaf for p in action.powers}
    assert all((moved[n] == model[n]).all() for n in still)
    np.testing.assert_allclose(apply(moved, x), apply(model, x), 1e-11)


def test_only_the_gauges_asked_for():
  (apply, params, x), *_ = BY_HAND['identity']
  kinds = lambda *gauges: [
    a.kind for a in align.find_symmetry(apply, params, x, gauges=gauges).actions
  ]
  assert kinds('permutation') == []
  assert kinds('permutation', 'scale') == ['scale']
  with pytest.raises(
    ValueError, match=r"has 'rotate'.*did you mean 'rotation'"
  ):
    align.find_symmetry(apply, params, x, gauges=('rotate',))


def test_absorbed_gains_give_rotations():
  (apply, params, x), *_ = BY_HAND['rms stream with gains']
  symmetry = align.find_symmetry(apply, params, x)
  model = values(params) | {'n1': jnp.asarray([1.0, -2, 3, 0.5, 4, -1])}
  found = align.absorb_norms(model, symmetry=symmetry, leaves='^n')
  assert found.kept == {}
  assert (found.params['n0'] == 1).all()
  np.testing.assert_allclose(
    found.params['u1'], model['n1'][:, None] * model['u1'], 1e-14
  )
  np.testing.assert_allclose(apply(found.params, x), apply(model, x), 1e-11)
  undo = align.invert(align.identity(symmetry) | found.gauge, symmetry=symmetry)
  back = align.permute(found.params, undo, symmetry=symmetry)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-14), back, model
  )
  rotated = align.find_symmetry(apply, params, x, ones=found.gains)
  assert [a.kind for a in rotated.actions] == ['rotation']
  g = align.random(rotated, jax.random.key(3))
  moved = align.permute(found.params, g, symmetry=rotated)
  assert np.abs(moved['u0'] - found.params['u0']).max() > 0.1
  np.testing.assert_allclose(apply(moved, x), apply(model, x), 1e-11)
  zero = align.absorb_norms(
    model | {'n0': jnp.zeros(6)}, symmetry=symmetry, leaves='^n'
  )
  assert zero.kept == {'n0': 'it has a zero'}
  assert zero.gains == '^n1$'
  scales = align.find_symmetry(apply, params, x, gauges=('scale',))
  kept = align.absorb_norms(model, symmetry=scales, leaves='^n').kept
  assert kept['n1'].startswith('it has negative entries')
