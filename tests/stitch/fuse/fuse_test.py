"""Distributions of sources with other tokenizers against plain loops."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch
from wsl.stitch._fuse import tokens

NEAR = 1e-12 if jax.config.jax_enable_x64 else 1e-5
TARGET = ['the', ' un', 'merg', 'ed', ' nets', ' today']
SOURCE = ['the', ' un', 'merged', ' net', 's', ' today']


def test_equal_tokens_are_aligned_and_others_are_not() -> None:
  found = stitch.align_tokens(SOURCE, TARGET)
  assert found.tolist() == [0, 1, -1, -1, -1, 5]
  assert stitch.align_tokens(TARGET, TARGET).tolist() == [*range(6)]
  same = stitch.align_tokens(['_a', 'b'], [' a', 'b'], same={'_a': ' a'})
  assert same.tolist() == [0, 1]
  with pytest.raises(ValueError, match='a text has no token'):
    stitch.align_tokens([], TARGET)


def test_the_path_has_the_least_cost() -> None:
  """Against all paths, counted by recursion."""
  source, target = ['ab', 'c', 'd', 'ef'], ['a', 'bc', 'de', 'f']

  @functools.cache
  def distance(a: str, b: str) -> int:
    if not a or not b:
      return len(a) + len(b)
    other = distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, other)

  def least(i: int, j: int) -> float:
    if min(i, j) < 0:
      return np.inf
    here = distance(source[i], target[j])
    if i == j == 0:
      return here
    return here + min(least(i - 1, j), least(i, j - 1), least(i - 1, j - 1))

  cost = tokens._costs(source, target)
  assert cost[3, 3] == least(3, 3)
  path = tokens._warp(cost)
  steps = {(i, j) for j, row in enumerate(path) for i in row}
  assert sum(distance(source[i], target[j]) for i, j in steps) == least(3, 3)


def draw(*shape: int) -> np.ndarray:
  x = np.random.default_rng(len(shape)).exponential(size=shape)
  return x / x.sum(-1, keepdims=True)


def test_distributions_are_written_in_the_vocabulary_of_the_target() -> None:
  q, size = draw(6, 5), 4
  words = ['a', 'x', 'c', 'y', 'b'], ['a', 'b', 'c', 'd']
  places = stitch.map_vocabulary(*words)
  assert places.tolist() == [0, -1, 2, -1, 1]
  q[5] = [0, 0.5, 0, 0.5, 0]  # nothing that the target has
  aligned, labels = stitch.align_tokens(SOURCE, TARGET), np.arange(6) % size
  found = stitch.transfer_probabilities(
    jnp.asarray(q), aligned, places, labels, size=size
  )
  wanted = np.eye(size)[labels]
  for n in (0, 1):
    row = np.zeros(size)
    row[[0, 2, 1]] = q[aligned[n]][[0, 2, 4]]
    wanted[n] = row / row.sum()
  np.testing.assert_allclose(found, wanted, atol=NEAR)


def test_sources_are_fused_by_their_cross_entropy() -> None:
  p, labels, mask = draw(3, 5, 4), np.asarray([0, 1, 2, 3, 0]), np.arange(5) > 1
  cost = -np.log(p[:, np.arange(5), labels])
  for weights in (None, mask):
    count = np.ones(5) if weights is None else weights
    each = (cost * count).sum(1) / count.sum()
    given: Any = {'mask': None if weights is None else jnp.asarray(weights)}
    call = functools.partial(
      stitch.fuse_probabilities, jnp.asarray(p), jnp.asarray(labels), **given
    )
    np.testing.assert_allclose(call(), p[np.argmin(each)], atol=NEAR)
    reward = np.exp(-each) / np.exp(-each).sum()
    mean = np.tensordot(reward, p, 1)
    np.testing.assert_allclose(call(combine='mean'), mean, atol=NEAR)
  with pytest.raises(ValueError, match="expected 'min' or 'mean'"):
    call(combine='max')


def test_the_loss_pulls_towards_the_text_and_the_sources() -> None:
  logits, labels = np.log(draw(5, 4)) + 1, np.asarray([0, 1, 2, 3, 0])
  fused = draw(2, 5, 4)[0]
  fused[1] = np.eye(4)[1]
  loss = lambda x, **more: stitch.fusion_loss(
    x, jnp.asarray(labels), jnp.asarray(fused), **more
  )
  q, y = np.exp(logits), np.eye(4)[labels]
  q /= q.sum(1, keepdims=True)
  value, slope = jax.value_and_grad(loss)(jnp.asarray(logits), share=0.7)
  kl = (fused * (np.log(np.where(fused > 0, fused, 1)) - np.log(q))).sum(1)
  text = -np.log(q[np.arange(5), labels])
  wanted = 0.7 * text.mean() + 0.3 * kl.mean()
  np.testing.assert_allclose(value, wanted, atol=10 * NEAR)
  pull = (0.7 * (q - y) + 0.3 * (q - fused)) / 5
  np.testing.assert_allclose(slope, pull, atol=NEAR)
  mask = jnp.asarray([0, 0, 1, 0, 0])
  only = loss(jnp.asarray(logits), share=1.0, mask=mask)
  np.testing.assert_allclose(only, text[2], atol=10 * NEAR)
