"""Compression of factors: least rank, nearest product, budgets of entries."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, deltas, merge, tree
from wsl.adapters._decompose import budget

VIEW = tree.Matrix(rows=(1,), columns=(0,))
LAYERS = tree.Matrix(batch=(0,), rows=(1,), columns=(2,))
NEAR = 1e-12 if jax.config.jax_enable_x64 else 3e-6


def draw(seed: int, *shape: int) -> Any:
  x = np.random.default_rng(seed).standard_normal(shape)
  return jnp.asarray(x, jnp.ones(()).dtype)


def lora(seed: int, rank: int, m: int = 9, n: int = 7) -> adapters.Factors:
  a, b = draw(seed, rank, n), draw(seed + 50, m, rank)
  return adapters.Factors(a, b, 0.5, (m, n), VIEW)


def dense(x: adapters.Factors) -> np.ndarray:
  return np.asarray(adapters.dense(x), np.float64)


def test_a_sum_has_its_least_rank_and_the_same_product() -> None:
  one, two = lora(0, 2), lora(1, 1)
  total = merge.sum(adapters.stack([{'w': x} for x in (one, two, one)]))['w']
  found = adapters.compress({'w': total, 'bias': draw(3, 4), 'none': None})
  assert (total.rank, found.factors['w'].rank) == (6, 3)
  assert list(found.rest) == ['bias']
  assert found.errors['w'] < 10 * NEAR
  product = dense(found.factors['w'])
  wanted = 2 * dense(one) + dense(two)
  np.testing.assert_allclose(product, wanted, rtol=0, atol=9 * NEAR)
  # Each direction has its singular value in A and in B.
  s = np.linalg.svd(wanted, compute_uv=False)[:3]
  for y in (found.factors['w'].a, found.factors['w'].b.T):
    inner = np.asarray(tree.matmul(y, y.T))
    np.testing.assert_allclose(inner, np.diag(s), atol=100 * NEAR)


@pytest.mark.same_under_defaults('the definition runs in float64')
def test_ranks_are_nearest_and_errors_are_the_tails() -> None:
  x = lora(2, 6)
  u, s, vt = np.linalg.svd(dense(x))
  share = np.cumsum(s**2) / np.sum(s**2)
  for options, kept in (
    ({'rank': 2}, 2),
    ({'energy': float(share[2]) - 1e-9}, 3),
    ({'energy': float(share[2]) + 1e-9}, 4),
    ({'energy': float(share[2]) + 1e-9, 'rank': 3}, 3),
    ({'parameters': 5 * 16}, 5),
    ({'parameters': 6 * 16 - 1, 'rank': 9}, 5),
  ):
    found = adapters.compress({'w': x}, **options)
    assert found.factors['w'].rank == kept, options
    wanted = (u[:, :kept] * s[:kept]) @ vt[:kept]
    np.testing.assert_allclose(dense(found.factors['w']), wanted, atol=1e-12)
    tail = np.sqrt(1 - share[kept - 1])
    np.testing.assert_allclose(found.errors['w'], tail, atol=1e-7)


@pytest.mark.same_under_defaults('an enumeration of integers')
def test_a_budget_is_best_among_all_ranks() -> None:
  draws = np.random.default_rng(0).exponential(size=(3, 3))
  squares = {k: np.sort(v)[::-1] for k, v in zip('abc', draws)}
  costs = dict.fromkeys('abc', 5)
  value = lambda ranks: sum(squares[k][: ranks[k]].sum() for k in 'abc')
  for parameters in (4, 5, 17, 30, 99):
    ranks = budget.by_parameters(squares, costs, parameters)
    assert 5 * sum(ranks.values()) <= parameters
    options = itertools.product(range(4), repeat=3)
    best = max(
      value(dict(zip('abc', r))) for r in options if 5 * sum(r) <= parameters
    )
    assert value(ranks) == pytest.approx(best)
  # A direction that does not fit leaves room for those of other leaves.
  squares = {'wide': np.asarray([900.0]), 'thin': np.asarray([2.0, 1.0])}
  ranks = budget.by_parameters(squares, {'wide': 100, 'thin': 1}, 99)
  assert ranks == {'wide': 0, 'thin': 2}


@pytest.mark.same_under_defaults('bfloat16 in both runs')
def test_the_error_includes_the_rounding_of_the_factors() -> None:
  x = lora(4, 3)
  half = jax.tree.map(lambda v: jnp.asarray(v, jnp.bfloat16), x)
  found = adapters.compress({'w': half}, rank=2, dtype=jnp.bfloat16)
  assert found.factors['w'].a.dtype == jnp.bfloat16
  lost = dense(found.factors['w']) - dense(half)
  measured = np.linalg.norm(lost) / np.linalg.norm(dense(half))
  assert found.errors['w'] == pytest.approx(measured, rel=1e-4)
  exact = adapters.compress({'w': half})
  assert exact.factors['w'].a.dtype == jnp.float32
  np.testing.assert_allclose(
    dense(exact.factors['w']), dense(half), rtol=0, atol=1e-5
  )


@pytest.mark.same_under_defaults('shapes do not depend on dtypes')
def test_layers_traces_and_leaves_on_demand() -> None:
  x = adapters.Factors(
    draw(5, 2, 3, 4), draw(6, 2, 6, 3), 2.0, (2, 4, 6), LAYERS
  )
  wanted = np.asarray(deltas.dense(x))
  cut = jax.jit(lambda x: adapters.compress({'w': x}, rank=3))(x)
  np.testing.assert_allclose(dense(cut.factors['w']), wanted, atol=1e-12)
  lazy = adapters.Factors(*tree.defer((x.a, x.b)), 2.0, (2, 4, 6), LAYERS)
  found = adapters.compress({'w': lazy})
  np.testing.assert_allclose(dense(found.factors['w']), wanted, atol=1e-12)
  with pytest.raises(ValueError, match='traced: give rank='):
    jax.jit(lambda x: adapters.compress({'w': x}, energy=0.5))(x)


def test_zeros_and_mistakes() -> None:
  zero = jax.tree.map(jnp.zeros_like, lora(0, 2))
  assert adapters.compress({'w': zero}) == ({}, {}, {'w': 0.0})
  x = lora(0, 2)
  bad = adapters.Factors(x.a.at[0, 0].set(jnp.nan), x.b, 1.0, x.shape, VIEW)
  for leaf, options, message in (
    (x, {'rank': 0}, 'compress(rank=0)'),
    (x, {'parameters': 1.5}, 'compress(parameters=1.5)'),
    (x, {'energy': 2}, 'compress(energy=2)'),
    (bad, {}, "leaf 'w' has values that are not finite"),
    (adapters.stack([{'w': x}])['w'], {}, 'merge it by merge.sum'),
  ):
    with pytest.raises(ValueError) as found:
      adapters.compress({'w': leaf}, **options)
    assert message in str(found.value)
    assert '\n' not in str(found.value)
