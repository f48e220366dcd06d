"""Steps of learned matching: gradients, retractions, latents."""

import dataclasses

import jax
import numpy as np
import optax

from tests.align.gauged import SYMMETRY, X
from tests.align.learned.by_hand import (
  ADAM,
  F,
  HEADS,
  INNER,
  loss_by_hand,
  loss_fn,
  M,
  MLP,
  mlp_loss,
  mlp_params,
  QK,
  ROTATION,
  SCALE,
  SIGN,
  slope,
  stepped,
  UNITS,
  VO,
)
from wsl import align
from wsl.align._gauges import elements
from wsl.align._learned import chart, steps, straight_through, tangents

RNG = np.random.default_rng(0)


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
