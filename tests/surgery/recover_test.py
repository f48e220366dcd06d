"""Lost stages, past adapters, signatures and patches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsl import deltas, merge, surgery, tree, types

RNG = np.random.default_rng(0)
STAGES = [{'w': jnp.asarray(RNG.normal(size=(3, 2)))} for _ in range(5)]


@pytest.mark.parametrize('stacked', [False, True])
def test_lost_stages_are_means_of_their_neighbours(stacked: bool) -> None:
  given = tree.stack(STAGES) if stacked else STAGES
  weights = [1.0, 2.0, 0.0, 3.0, 4.0]
  find = functools.partial(surgery.recover_stages, given, weights=weights)
  w = lambda found, i: np.asarray(found['w'][i] if stacked else found[i]['w'])
  x = [np.asarray(s['w']) for s in STAGES]
  found = find(2)
  np.testing.assert_allclose(w(found, 2), (2 * x[1] + 3 * x[3]) / 5, 1e-14)
  for i in (0, 1, 3, 4):
    assert (w(found, i) == x[i]).all()
  # Two adjacent ones take the nearest survivors, ends become copies.
  found = find([1, 2])
  for i in (1, 2):
    np.testing.assert_allclose(w(found, i), (x[0] + 3 * x[3]) / 4, 1e-14)
  assert (w(find(0), 0) == x[1]).all()
  assert (w(find(4), 4) == x[3]).all()
  plain = surgery.recover_stages(given, 1)
  np.testing.assert_allclose(w(plain, 1), (x[0] + x[2]) / 2, 1e-14)
  same = [STAGES[0], STAGES[3], STAGES[0]]
  found = surgery.recover_stages(same, 1, weights=[0.3, 0.0, 0.9])
  assert (np.asarray(found[1]['w']) == x[0]).all()


def test_stages_on_demand_stay_so() -> None:
  lazy = tree.defer(STAGES[:3])
  found = surgery.recover_stages(lazy, 1)
  assert tree.on_demand(found[1])
  wanted = surgery.recover_stages(STAGES[:3], 1)[1]['w']
  assert (tree.read(found[1])['w'] == wanted).all()


def quadratic(params: types.Params, batch: jax.Array) -> jax.Array:
  return jnp.sum((params['blocks']['w'] - batch) ** 2) + params['head'] ** 2


TARGETS = jnp.ones((40, 4))
START = {'blocks': {'w': jnp.zeros(4)}, 'head': jnp.ones(())}
ADAM = optax.adam(0.1)
simulate = functools.partial(
  surgery.simulate_failures, quadratic, START, ADAM, TARGETS,
  key=jax.random.key(1),
)  # fmt: skip


def replay(failed: np.ndarray, recovery: str, every: int = 10) -> list[float]:
  """Trains with Adam, step by step in numpy, with the failures given."""
  w, losses, norms = np.r_[np.zeros(4), 1.0], [], np.zeros(4)
  factors, mu, nu, count = np.ones(5), np.zeros(5), np.zeros(5), 0
  target = np.r_[np.ones(4), 0.0]  # the head has the loss h^2
  saved = w, mu, nu, count
  for k, lost in enumerate(failed):
    if k % every == 0:
      saved = w, mu, nu, count
    if lost.any() and recovery == 'checkpoint':
      w, mu, nu, count = saved
    elif lost.any():
      weights = norms + 1e-4 if recovery == 'average' else np.ones(4)
      w, old, alive = w.copy(), w, np.flatnonzero(~lost)
      for i in np.flatnonzero(lost):
        before, after = alive[alive < i][-1:], alive[alive > i][:1]
        near = np.r_[before, after]
        if recovery == 'copy':
          near = near[:1]
        mean = weights[near] @ old[near] / weights[near].sum()
        w[i] = 0 if recovery == 'initial' else mean
      at = np.flatnonzero(lost)
      factors[at], mu, nu = 1.1, mu.copy(), nu.copy()
      mu[at] = nu[at] = 0
    losses.append(float(((w - target) ** 2).sum()))
    gradient = 2 * (w - target)
    norms, count = np.abs(gradient[:4]), count + 1
    mu, nu = 0.9 * mu + 0.1 * gradient, 0.999 * nu + 0.001 * gradient**2
    step = mu / (1 - 0.9**count) / (np.sqrt(nu / (1 - 0.999**count)) + 1e-8)
    w = w - 0.1 * factors * step
  return losses


@pytest.mark.parametrize(
  'recovery', ['average', 'uniform', 'copy', 'initial', 'checkpoint']
)
def test_simulation_equals_a_plain_loop(recovery: str) -> None:
  found = simulate(rate=0.05, recovery=recovery, every=10)
  failed = np.asarray(found.failed)
  assert 3 < failed.sum() < 20
  assert not failed.all(1).any()
  wanted = replay(failed, recovery)
  np.testing.assert_allclose(found.losses, wanted, 1e-10)
  at = np.arange(40) % 10
  redone = np.where(failed.any(1), at, 0) * (recovery == 'checkpoint')
  np.testing.assert_array_equal(found.redone, redone)


def test_without_failures_it_is_plain_training() -> None:
  found = simulate(rate=0.0)
  assert not found.failed.any()
  np.testing.assert_allclose(found.losses, replay(np.zeros((40, 4), bool), ''))


def test_swapped_steps_train_the_neighbours_place() -> None:
  places = jnp.broadcast_to(jnp.arange(4.0), (2, 4))
  found = surgery.simulate_failures(
    quadratic, START, optax.sgd(0.5), places, rate=0.0, swap=True,
    key=jax.random.key(0),
  )  # fmt: skip
  # Step 1 sees the order 1, 0, 3, 2: each stage ends at its partner's target.
  assert found.params['blocks']['w'].tolist() == [1.0, 0.0, 3.0, 2.0]
  assert surgery.swapped_order(2) == [1, 0]
  assert surgery.swapped_order(3) == [1, 0, 2]
  assert surgery.swapped_order(5) == [1, 0, 2, 4, 3]


def test_past_adapters_attract_geometrically() -> None:
  past = tree.stack(STAGES[:3])
  rule = surgery.merge_past(past, momentum=0.25)
  params, mean = STAGES[3], np.mean([np.asarray(s['w']) for s in STAGES[:3]], 0)
  gap = np.asarray(params['w']) - mean
  zero = jax.tree.map(jnp.zeros_like, params)
  for step in range(1, 4):
    updates, _ = rule.update(zero, rule.init(params), params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params['w'] - mean, 0.75**step * gap, 1e-12)
  none = surgery.merge_past(past, momentum=0.0)
  step = {'w': jnp.asarray(RNG.normal(size=(3, 2)))}
  assert (none.update(step, (), STAGES[3])[0]['w'] == step['w']).all()
  # After an optimizer: (1 - m) (A + u) + m mean.
  updates, _ = rule.update(step, (), STAGES[3])
  wanted = 0.75 * (STAGES[3]['w'] + step['w']) + 0.25 * mean
  np.testing.assert_allclose(STAGES[3]['w'] + updates['w'], wanted, 1e-13)


def test_signatures_are_orthogonal_to_clean_training() -> None:
  base, clean, *noisy = STAGES
  tau, a = deltas.stack(base, noisy), deltas.stack(base, [clean])
  a = jax.tree.map(lambda x: x[0], a)
  found = surgery.robust_signatures(tau, a)
  line = np.asarray(a['w']).ravel()
  for d, rho in zip(np.asarray(tau['w']), np.asarray(found['w'])):
    assert abs(rho.ravel() @ line) < 1e-13
    wanted = d.ravel() - (d.ravel() @ line) / (line @ line) * line
    np.testing.assert_allclose(rho.ravel(), wanted, 1e-12)
  patched = deltas.apply(clean, merge.sum(found))
  restored = deltas.apply(patched, merge.sum(found), coef=-1.0)
  np.testing.assert_allclose(restored['w'], clean['w'], 1e-13)
  still = surgery.robust_signatures(tau, jax.tree.map(jnp.zeros_like, a))
  assert (still['w'] == tau['w']).all()
  same = surgery.robust_signatures(jax.tree.map(lambda x: x[None], a), a)
  assert np.abs(same['w']).max() < 1e-15


def net(params: types.Params, x: jax.Array) -> jax.Array:
  """Two convolutions, one of size 1 with a stride, and a dense head."""
  conv = functools.partial(
    jax.lax.conv_general_dilated,
    padding='SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  x = jnp.tanh(conv(x, params['conv'], (1, 1)))
  x = conv(x, params['point'], (2, 2))
  return x.mean((1, 2)) @ params['head']


def test_patches_start_as_the_model_and_follow_each_convolution() -> None:
  draw = lambda *shape: jnp.asarray(RNG.normal(size=shape))
  params = {
    'conv': draw(3, 3, 1, 4),
    'point': draw(1, 1, 4, 2),
    'head': draw(2, 3),
  }
  x, apply = draw(2, 6, 6, 1), jax.jit(net)
  patches = surgery.channel_patches(apply, params, x)
  assert {k: v.shape for k, v in patches.items()} == {'conv': (3, 3, 4)}
  both = surgery.channel_patches(apply, params, x, pointwise=True)
  assert both['point'].shape == (3, 3, 2)
  run = jax.jit(surgery.reprogrammed(apply))
  np.testing.assert_allclose(run(params, patches, x), apply(params, x), 1e-13)
  # A patch that doubles a channel equals doubling the kernel's outputs.
  twice = {'conv': patches['conv'].at[..., 1].mul(2)}
  scaled = {**params, 'conv': params['conv'].at[..., 1].mul(2)}
  wanted = apply(scaled, x)
  np.testing.assert_allclose(run(params, twice, x), wanted, 1e-12)
  assert np.abs(wanted - apply(params, x)).max() > 0.05
  gradient = jax.grad(lambda q: run(params, q, x).sum())(patches)
  assert np.abs(gradient['conv']).max() > 1e-3
  with pytest.raises(ValueError, match="patch 'other' belongs to no"):
    run(params, {'other': both['point']}, x)


ONE = {'w': jnp.ones((2, 3))}


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: surgery.recover_stages(STAGES, 5), 'lost=5: expected a position'),
    (lambda: surgery.recover_stages(STAGES[:1], 0), 'no stage survives'),
    (lambda: surgery.recover_stages([ONE, *STAGES], 2), "leaf 'w' has shape"),
    (
      lambda: surgery.recover_stages(STAGES, 1, weights=[1.0, 2.0]),
      'expected 5 numbers',
    ),
    (lambda: surgery.recover_stages(STAGES, 1.5), 'lost=1.5'),
    (lambda: simulate(rate=1.5), 'rate=1.5'),
    (lambda: simulate(rate=0.1, recovery='mean'), "recovery='mean'"),
    (lambda: simulate(rate=0.1, blocks='layers'), "no subtree 'layers'"),
    (lambda: surgery.swapped_order(1), 'none to swap'),
    (lambda: surgery.merge_past(ONE, momentum=2.0), 'momentum=2.0'),
    (
      lambda: surgery.merge_past(ONE).update(ONE, (), None),
      'update needs the parameters',
    ),
    (
      lambda: surgery.robust_signatures(ONE, ONE),
      "leaf 'w' of clean has shape",
    ),
    (
      lambda: surgery.channel_patches(lambda p, x: x @ p['w'], ONE, ONE['w'].T),
      'no convolution has',
    ),
  ],
)
def test_bad_arguments(call, message: str) -> None:  # type: ignore[no-untyped-def]
  with pytest.raises(ValueError, match=message) as error:
    call()
  assert '\n' not in str(error.value)
  assert len(str(error.value)) <= 200
