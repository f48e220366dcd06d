"""Learned matching: exact elements, planted pairs, selection."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.align.gauged import net, permuted, SYMMETRY, X
from tests.align.learned.by_hand import (
  F,
  GIVEN,
  M,
  MLP,
  mlp_loss,
  mlp_params,
  QK,
  ROTATION,
  SCALE,
  stepped,
  TARGET,
  TRACES,
  VO,
)
from wsl import align, tree
from wsl.align._learned import tangents


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
