"""Experts under routing by rank: which are freed, and which stay pinned."""

import math

import jax
import numpy as np
import pytest

from tests.align.find.experts import freed, moe, routers, traps
from tests.align.find.zoo import base
from wsl import align


@pytest.mark.parametrize('name', freed.FREED)
def test_experts_are_freed(name):
  apply, params, inputs, order = freed.FREED[name]
  apply = base.lenient(apply)
  symmetry = align.find_symmetry(apply, params, *inputs)
  print(align.explain(symmetry))
  report = align.check(symmetry, apply, params, *inputs, key=jax.random.key(1))
  assert report.error < 1e-12
  assert np.isclose(symmetry.log10_order, math.log10(order), rtol=1e-9)


@pytest.mark.parametrize('name', traps.PINNED)
def test_experts_stay_pinned(name):
  apply, params, inputs, most, reason = traps.PINNED[name]
  apply = base.lenient(apply)
  symmetry = align.find_symmetry(apply, params, *inputs)
  print(align.explain(symmetry))
  assert 10**symmetry.log10_order < most * (1 + 1e-9)
  columns = [f for s in symmetry.plan('router')[-1] for f in s]
  assert all(factor.pinned for factor in columns)
  assert reason in align.explain(symmetry)
  report = align.check(symmetry, apply, params, *inputs, key=jax.random.key(1))
  assert report.error < 1e-12


@pytest.mark.parametrize(
  ('router', 'order'),
  [
    (routers.cosine, moe.NESTED),
    # The two groups may be exchanged, and the experts of a group are pinned.
    (routers.group_limited, 2 * moe.FIXED),
  ],
)
def test_experts_that_a_numerical_test_frees(router, order):
  params, apply = moe.draw(*moe.ROUTED), base.lenient(router)
  symmetry = align.find_symmetry(
    apply, params, *moe.X, certify=jax.random.key(0)
  )
  report = align.check(symmetry, apply, params, *moe.X, key=jax.random.key(1))
  assert report.error < 1e-12
  assert np.isclose(symmetry.log10_order, math.log10(order), rtol=1e-9)
