"""advance: the order of examples, segments, compilation and bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train import problem
from wsl import train

squares, noisy = problem.squares, problem.noisy
zero, same = problem.zero, problem.same
ADAM = optax.adam(0.05)
ADVANCE = functools.partial(
  train.advance, optimizer=ADAM, batch_size=6, key=jax.random.key(1)
)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_a_convex_problem_reaches_its_optimum(dtype):
  data, w = problem.data(dtype=dtype)
  optimizer = train.adamw(0.1, steps=400, weight_decay=0.0)
  state = train.start(zero(dtype), optimizer=optimizer)
  state, losses = train.advance(
    squares,
    state,
    data,
    optimizer=optimizer,
    steps=400,
    batch_size=6,
    key=jax.random.key(0),
  )
  assert losses.shape == (400,)
  assert losses.dtype == state.params['w'].dtype == dtype
  assert state.step == 400
  assert losses[-1] < 1e-6 < losses[0]
  np.testing.assert_allclose(state.params['w'], w, atol=1e-3)


@pytest.mark.parametrize('parts', [(40, 60), (1, 99), (50, 0, 50), (3,) * 33])
def test_segments_equal_one_run(parts):
  data, _ = problem.data()
  begin = train.start(zero(), optimizer=ADAM)
  whole, losses = ADVANCE(noisy, begin, data, steps=sum(parts))
  state, pieces = begin, []
  for steps in parts:
    state, piece = ADVANCE(noisy, state, data, steps=steps)
    pieces.append(piece)
  same(state, whole)
  same(jnp.concatenate(pieces), losses)


def test_vmap_equals_a_loop():
  datas = jax.tree.map(
    lambda *x: jnp.stack(x), *[problem.data(seed=s)[0] for s in range(3)]
  )
  keys = jax.random.split(jax.random.key(5), 3)
  starts = {'w': jnp.arange(9.0).reshape(3, 3)}
  begin = jax.vmap(lambda p: train.start(p, optimizer=ADAM))(starts)

  def run(state, data, key):
    return train.advance(
      noisy,
      state,
      data,
      optimizer=ADAM,
      steps=25,
      batch_size=6,
      key=key,
    )

  states, losses = jax.vmap(run)(begin, datas, keys)
  assert losses.shape == (3, 25)
  for t in range(3):
    at = functools.partial(jax.tree.map, lambda x, t=t: x[t])
    alone, alone_losses = run(at(begin), at(datas), keys[t])
    np.testing.assert_allclose(losses[t], alone_losses, rtol=1e-12)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-12),
      at(states),
      alone,
    )


@pytest.mark.parametrize(('count', 'batch_size'), [(20, 6), (7, 7), (9, 3)])
def test_an_epoch_is_a_permutation_without_its_last_batch(count, batch_size):
  data = jnp.eye(count)
  sgd = optax.sgd(1.0)
  state = train.start(jnp.zeros(count), optimizer=sgd)
  per_epoch = count // batch_size
  seen = []
  for _ in range(2 * per_epoch):
    before = state.params
    state, _ = train.advance(
      pick,
      state,
      data,
      optimizer=sgd,
      steps=1,
      batch_size=batch_size,
      key=jax.random.key(2),
    )
    seen.append(np.flatnonzero(state.params - before))
  first = np.concatenate(seen[:per_epoch])
  second = np.concatenate(seen[per_epoch:])
  for epoch in (first, second):
    assert len(set(epoch.tolist())) == len(epoch) == per_epoch * batch_size
  if per_epoch > 1:
    assert [s.tolist() for s in seen[:per_epoch]] != [
      s.tolist() for s in seen[per_epoch:]
    ]


def pick(params, batch, key):
  del key
  return -batch.sum(0) @ params


def test_only_the_key_is_a_source_of_randomness():
  data, _ = problem.data()
  begin = train.start(zero(), optimizer=ADAM)
  _, losses = ADVANCE(noisy, begin, data, steps=10)
  _, again = ADVANCE(noisy, begin, data, steps=10)
  _, other = ADVANCE(noisy, begin, data, steps=10, key=jax.random.key(9))
  same(losses, again)
  assert np.all(losses != other)


def test_segments_of_one_length_compile_once():
  traces = []

  def loss(params, batch, key):
    traces.append(1)
    return squares(params, batch, key)

  data, _ = problem.data()
  state = train.start(zero(), optimizer=ADAM)
  for _ in range(4):
    state, _ = ADVANCE(loss, state, data, steps=5)
  assert len(traces) == 1
  ADVANCE(loss, state, data, steps=6)
  assert len(traces) == 2


def test_bound_arrays_change_without_retracing():
  traces = []

  def loss(head, params, batch, key):
    traces.append(1)
    del key
    x, y = batch
    return jnp.mean(jnp.square(x @ params['w'] * head - y))

  data, w = problem.data()
  state = train.start(zero(), optimizer=ADAM)
  heads = jnp.array([1.0, 2.0])
  for head in heads:
    bound = jax.tree_util.Partial(loss, head)
    after, _ = ADVANCE(bound, state, data, steps=400)
    np.testing.assert_allclose(after.params['w'] * head, w, atol=1e-2)
  assert len(traces) == 1
  many, _ = jax.vmap(
    lambda head: ADVANCE(
      jax.tree_util.Partial(loss, head), state, data, steps=400
    )
  )(heads)
  np.testing.assert_allclose(
    many.params['w'] * heads[:, None], jnp.stack([w, w]), atol=1e-2
  )


def test_closed_over_arrays_can_be_batched():
  data, _ = problem.data()
  state = train.start(zero(), optimizer=ADAM)

  def run(head):
    loss = lambda p, batch, key: squares({'w': p['w'] * head}, batch, key)
    return ADVANCE(loss, state, data, steps=7)

  heads = jnp.array([1.0, 2.0])
  many, _ = jax.jit(jax.vmap(run))(heads)
  for i, head in enumerate(heads):
    np.testing.assert_allclose(
      many.params['w'][i], run(head)[0].params['w'], rtol=1e-12
    )


def test_nan_propagates_to_all_later_losses():
  (x, y), _ = problem.data()
  data = x.at[4].set(jnp.nan), y
  state = train.start(zero(), optimizer=ADAM)
  state, losses = ADVANCE(squares, state, data, steps=30)
  first = int(np.argmax(np.isnan(losses)))
  assert np.all(np.isnan(losses[first:]))
  assert np.all(np.isnan(state.params['w']))


def test_apply_if_finite_skips_a_nan_step():
  (x, y), w = problem.data()
  data = x.at[4].set(jnp.nan), y
  optimizer = optax.apply_if_finite(ADAM, max_consecutive_errors=10)
  state = train.start(zero(), optimizer=optimizer)
  state, losses = ADVANCE(squares, state, data, optimizer=optimizer, steps=400)
  assert 0 < np.isnan(losses).sum() < 400
  np.testing.assert_allclose(state.params['w'], w, atol=1e-2)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'batch_size': 21}, '^advance: batch_size=21, .* only 20 examples'),
    ({'batch_size': 0}, '^advance: batch_size=0: expected 1'),
    ({'steps': -1}, '^advance: steps=-1: expected 0'),
  ],
)
def test_a_bad_number_is_named(change, message):
  data, _ = problem.data()
  state = train.start(zero(), optimizer=ADAM)
  with pytest.raises(ValueError, match=message):
    ADVANCE(squares, state, data, **{'steps': 1, **change})


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    ({'x': np.ones((9, 2)), 'y': np.ones(8)}, r"'y' is \[8\] and 'x'"),
    ({'x': np.ones((9, 2)), 'y': np.ones(())}, r"'y' is \[\] and 'x'"),
    ({}, 'no leaves'),
  ],
)
def test_bad_data_is_named(data, message):
  state = train.start(zero(), optimizer=ADAM)
  with pytest.raises(ValueError, match=f'^advance: .*{message}'):
    ADVANCE(squares, state, data, steps=1)
  with pytest.raises(ValueError, match=f'^average: .*{message}'):
    train.average(lambda p, b: b['y'], zero(), data, batch_size=2)


def test_adamw_warms_up_decays_and_clips():
  optimizer = train.adamw(0.5, steps=20, warmup=0.25, clip=1.0)
  state = optimizer.init(jnp.zeros(()))
  updates = []
  for _ in range(21):
    with jax.numpy_dtype_promotion('standard'):
      update, state = optimizer.update(jnp.array(3.0), state, jnp.zeros(()))
    updates.append(-float(update))
  rise = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
  fall = [0.25 * (1 + np.cos(np.pi * i / 15)) for i in range(1, 16)]
  np.testing.assert_allclose(updates, rise + fall, rtol=1e-6, atol=1e-9)
