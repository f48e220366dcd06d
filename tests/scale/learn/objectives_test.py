"""Objectives against their definitions in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import scale

KEY = jax.random.key(0)
W = np.asarray([[1.0, -1.0, 0.5], [0.0, 2.0, -0.5]])
X = np.asarray([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.1], [2.0, 2.0]])
Y = np.asarray([0, 2, 1, 1])


def model(p: Any, x: Any) -> Any:
  return jnp.asarray(x) @ p


def log_p(w: Any = W, x: Any = X) -> Any:
  z = x @ w
  return z - np.log(np.exp(z).sum(1, keepdims=True))


def ce(w: Any = W, x: Any = X, y: Any = Y) -> Any:
  return -log_p(w, x)[np.arange(len(y)), y]


def check(found: Any, wanted: float) -> None:
  np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_supervised() -> None:
  loss = scale.supervised(model)
  check(loss(jnp.asarray(W), (X, Y), KEY), ce().mean())
  with pytest.raises(ValueError, match=r'logits \(4, 3\) need integer labels'):
    loss(jnp.asarray(W), (X, Y[:2]), KEY)


def test_negation_is_the_control_loss_minus_the_target_loss() -> None:
  double = lambda p, x: 2.0 * model(p, x)
  loss = scale.negation(model, double)
  batch = ((X[:2], Y[:2]), (X, Y))
  wanted = ce(2 * W).mean() - ce(W, X[:2], Y[:2]).mean()
  check(loss(jnp.asarray(W), batch, KEY), wanted)


def test_tasks_add_up() -> None:
  one = scale.supervised(model)
  two = scale.entropy(lambda p, x: model(p, x) * 3.0)
  loss = scale.multi_task([one, two])
  q = log_p(3 * W)
  wanted = ce().mean() - (np.exp(q) * q).sum(1).mean()
  check(loss(jnp.asarray(W), ((X, Y), X), KEY), wanted)
  with pytest.raises(ValueError, match='2 objectives and a batch of 1 parts'):
    loss(jnp.asarray(W), ((X, Y),), KEY)
  with pytest.raises(ValueError, match='no objectives'):
    scale.multi_task([])


def test_entropy_is_zero_at_certainty_and_log_c_at_chance() -> None:
  loss = scale.entropy(model)
  check(loss(jnp.zeros((2, 3)), X, KEY), np.log(3))
  assert loss(jnp.asarray(100.0 * W), X[:3], KEY) < 1e-2
  step = jax.grad(lambda w: loss(w, X, KEY))(jnp.asarray(W))
  after = loss(jnp.asarray(W) - 1e-3 * step, X, KEY)
  assert after < loss(jnp.asarray(W), X, KEY)


def test_ufm_by_hand() -> None:
  shift = lambda by: lambda key, x: jnp.asarray(x) + by
  loss = scale.ufm(model, weak=shift(0.1), strong=shift(0.2))
  inputs, known, labels = X, X[:1], Y[:1]
  for threshold in (0.0, 0.55, 1.0):
    batch = scale.Views(inputs, known, labels, threshold)
    q = np.exp(0.5 * log_p(W, X + 0.1))
    q = q / q.sum(1, keepdims=True)
    counts = q.max(1) > threshold
    terms = -(q * log_p(W, X + 0.2)).sum(1) * counts
    trusted = ce(W, known + 0.2, labels)
    wanted = np.concatenate([terms, trusted]).mean()
    check(loss(jnp.asarray(W), batch, KEY), wanted)
    if threshold == 0.55:
      assert 0 < counts.sum() < 4


def test_ufm_views_have_separate_keys_and_a_constant_target() -> None:
  noise = lambda key, x: x + jax.random.normal(key, x.shape, x.dtype)
  loss = scale.ufm(model, weak=noise, strong=noise)
  x = jnp.asarray(X)
  batch = scale.Views(x, x[:1], Y[:1], 0.0)
  w = jnp.asarray(W)
  assert loss(w, batch, KEY) == loss(w, batch, KEY)
  assert loss(w, batch, KEY) != loss(w, batch, jax.random.key(1))
  same = lambda key, x: x
  loss = scale.ufm(model, weak=same, strong=same, exponent=1.0)
  # With q = p the cross-entropy of q and p is flat in p at p = q.
  batch = scale.Views(x, x[:0], Y[:0], 0.0)
  np.testing.assert_allclose(
    jax.grad(lambda w: loss(w, batch, KEY))(w), np.zeros((2, 3)), atol=1e-12
  )


def test_trusted_selects_the_most_confident_of_each_class() -> None:
  logits = np.log(
    [[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [0.55, 0.45]]
  )
  found = scale.trusted(logits, most=2)
  assert found.indices.tolist() == [0, 2, 4, 3]
  assert found.labels.tolist() == [0, 0, 1, 1]
  assert len(scale.trusted(logits).indices) == 5  # N / C = 3 of class 0, 2 of 1
  with pytest.raises(ValueError, match='1 examples for 2 classes'):
    scale.trusted(logits[:1])


def test_shots_are_k_of_each_class() -> None:
  labels = np.asarray([2, 0, 2, 0, 1, 2, 1, 0])
  found = scale.shots(labels, per_class=2, key=KEY)
  assert labels[found].tolist() == [0, 0, 1, 1, 2, 2]
  assert len(set(found.tolist())) == 6
  fewer = scale.shots(labels, per_class=1, key=KEY)
  assert set(fewer) <= set(found)
  with pytest.raises(ValueError, match='class 1 has 2 examples'):
    scale.shots(labels, per_class=3, key=KEY)
  with pytest.raises(ValueError, match=r'shots\(per_class=0\)'):
    scale.shots(labels, per_class=0, key=KEY)


def test_few_shot_repeats_the_chosen_and_no_others() -> None:
  labels = np.asarray([0, 1] * 10)
  data = {'x': np.arange(20)}
  stream = scale.few_shot(data, labels, per_class=3, batch_size=4, key=KEY)
  drawn = [next(stream) for _ in range(9)]
  places = np.concatenate([x['x'] for x, _ in drawn])
  assert (labels[places] == np.concatenate([y for _, y in drawn])).all()
  unique, counts = np.unique(places, return_counts=True)
  assert len(unique) == 6
  assert counts.tolist() == [6] * 6  # 36 examples are six whole rounds
  assert set(unique) == set(
    scale.shots(labels, per_class=3, key=jax.random.fold_in(KEY, 0))
  )


def test_the_old_positional_count_of_shots_still_works() -> None:
  labels = np.asarray([0, 1, 0, 1])
  with pytest.warns(DeprecationWarning, match='positional per_class'):
    found = scale.shots(labels, 1, key=KEY)
  assert (found == scale.shots(labels, per_class=1, key=KEY)).all()
  with pytest.warns(DeprecationWarning, match=r'scale\.few_shot'):
    stream = scale.few_shot(labels, labels, 1, batch_size=2, key=KEY)
  assert sorted(next(stream)[1].tolist()) == [0, 1]


def test_cross_entropy_is_that_of_log_softmax_to_rounding() -> None:
  rng = np.random.default_rng(0)
  logits = jnp.asarray(30 * rng.normal(size=(64, 5, 7)))
  labels = jnp.asarray(rng.integers(0, 7, (64, 5)))
  loss = scale.supervised(lambda p, x: x * p)
  found = loss(jnp.asarray(1.0), (logits, labels), KEY)
  log_p = jax.nn.log_softmax(logits)
  wanted = -jnp.take_along_axis(log_p, labels[..., None], -1).mean()
  np.testing.assert_allclose(found, wanted, rtol=1e-12)
