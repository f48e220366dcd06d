"""Evolved combinations of LoRAs against numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, search, tree

VIEW = tree.Matrix(rows=(1,), columns=(0,))
RANDOM = np.random.default_rng(0)


def expert(scale: float = 0.5) -> adapters.Factors:
  a, b = RANDOM.normal(size=(2, 5)), RANDOM.normal(size=(3, 2))
  return adapters.Factors(jnp.asarray(a), jnp.asarray(b), scale, (3, 5), VIEW)


EXPERTS = [{'w': expert()}, {'w': expert(2.0)}, {'w': expert()}]
KEEP, COEF = np.array([0.5, 0.04, 1.0]), np.array([0.3, -1.0, 0.6])


def merged(experts: Any, keep: Any, coef: Any) -> np.ndarray:
  merge = jax.jit(lambda k, c: search.merge_factors(experts, keep=k, coef=c))
  return np.asarray(adapters.dense(merge(keep, coef)['w']))


def test_factors_are_combined_by_the_formula() -> None:
  a, b = np.zeros((2, 5)), np.zeros((3, 2))
  for x, k, c in zip(EXPERTS, (5, 1, 10), COEF):
    one = np.asarray(x['w'].a)
    least = np.sort(np.abs(one).ravel())[-k]
    a += c * one * (np.abs(one) >= least)
    b += c * np.asarray(x['w'].b) * (x['w'].scale / 0.5)
  found = merged(EXPERTS, KEEP, COEF)
  np.testing.assert_allclose(found, 0.5 * b @ a, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(merged(EXPERTS, KEEP, -COEF), found, rtol=1e-6)


def test_one_expert_is_itself() -> None:
  found = merged(EXPERTS[:1], np.ones(1), np.ones(1))
  x = EXPERTS[0]['w']
  np.testing.assert_allclose(found, 0.5 * x.b @ x.a, rtol=1e-6)


def test_stages_and_penalty() -> None:
  target = np.array([0.9, 0.2])
  asked: list[tuple[np.ndarray, np.ndarray]] = []

  def loss(keep: np.ndarray, coef: np.ndarray) -> np.ndarray:
    asked.append((keep, coef))
    return ((keep - target) ** 2).sum(1) + ((coef - [1.2, -0.7]) ** 2).sum(1)

  found = search.evo_merging(
    loss,
    2,
    evaluations=(240, 320),
    population=8,
    sigma=0.2,
    key=jax.random.key(0),
  )
  # d/dx (x - t)^2 + 0.025 |x| = 0 at t - 0.0125 sign(t).
  np.testing.assert_allclose(found.keep, target - 0.0125, atol=5e-3)
  np.testing.assert_allclose(found.coef, [1.1875, -0.6875], atol=5e-3)
  assert found.loss == pytest.approx(
    float(loss(found.keep[None], found.coef[None])[0])
  )
  assert found.loss < min(x.loss for x in found.stages)
  first, second = asked[0], asked[-2]
  assert (first[1] == 0.5).all()
  assert (second[0] == found.keep).all()
  assert [len(x.points) for x in found.stages] == [240, 320]


def test_wrong_arguments_are_named() -> None:
  with pytest.raises(ValueError, match='no experts given'):
    search.merge_factors([], keep=[], coef=[])
  with pytest.raises(ValueError, match=r'keep has shape \(2,\): give one'):
    search.merge_factors(EXPERTS, keep=[1, 1], coef=[1, 1, 1])
  wide = jax.tree.map(lambda x: x, EXPERTS[0])
  other = {'w': adapters.Factors(jnp.ones((1, 5)), jnp.ones((3, 1)), 1.0,
                                 (3, 5), VIEW)}  # fmt: skip
  with pytest.raises(ValueError, match='factors of experts 0 and 1 differ'):
    search.merge_factors([wide, other], keep=[1, 1], coef=[1, 1])
  with pytest.raises(ValueError, match='penalty=-1'):
    search.evo_merging(lambda k, c: k, 2, penalty=-1, key=jax.random.key(0))
