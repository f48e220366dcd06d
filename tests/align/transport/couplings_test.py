"""Couplings: numbers of POT, linear programs, and brute force."""

import numpy as np
import pytest

from tests.align.transport.widths import (
  semi_permutations,
)
from wsl import align
from wsl.align._transport import couplings, scaling

# POT 0.9.7: ot.emd, ot.sinkhorn(.05, 'sinkhorn_log') and
# ot.unbalanced.sinkhorn_unbalanced(.05, .3, reg_type='kl') of masses / 3, times
# 3; all until convergence.
COST = [
  [0.625, 0.897, 0.776, 0.225],
  [0.3, 0.874, 0.005, 0.821],
  [0.797, 0.468, 0.303, 0.278],
]
ROWS, COLUMNS = np.asarray([0.5, 1, 1.5]), np.asarray([1.2, 0.3, 0.9, 0.6])
EXACT = [[0.2, 0, 0, 0.3], [1, 0, 0, 0], [0, 0.3, 0.9, 0.3]]
BALANCED = [
  [0.3122652010120436, 8.888279799298355e-06, 8.900616007897684e-06]
  + [0.1877170100921493],
  [0.8242609980608451, 5.587534382396356e-08, 0.17573894110542435]
  + [4.958387148816103e-09],
  [0.06347380092711168, 0.2999910558448567, 0.7242521582785677]
  + [0.41228298494946347],
]
UNBALANCED = [
  [0.024151276267772814, 6.428544570332696e-06, 4.431052174922474e-06]
  + [0.2152780735435154],
  [0.4164778320181107, 2.640132922353761e-07, 0.5715647628619437]
  + [3.7149010117464174e-08],
  [0.003172611724152539, 0.14021974426605882, 0.23301427046916756]
  + [0.3055607056283752],
]


def test_transport_problems_have_the_solutions_of_pot():
  cost = np.stack([COST, np.flip(COST)])
  rows, columns = (
    np.stack([ROWS, ROWS[::-1]]),
    np.stack([COLUMNS, COLUMNS[::-1]]),
  )
  exact = couplings.exact(cost, rows, columns, align.assign_scipy)
  soft = scaling.entropic(cost, rows, columns, epsilon=0.05)
  free = scaling.entropic(cost, rows, columns, epsilon=0.05, strength=0.3)
  for found, wanted in ((exact, EXACT), (soft, BALANCED), (free, UNBALANCED)):
    np.testing.assert_allclose(found[0], wanted, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found[1], np.flip(found[0]), rtol=1e-9)


@pytest.mark.parametrize(('n', 'm'), [(4, 6), (6, 4), (3, 5), (5, 5)])
def test_copies_of_units_solve_the_linear_program(n, m):
  from scipy import optimize

  cost = np.random.default_rng(n).normal(size=(2, n, m))
  rows, columns = np.ones((2, n)), np.full((2, m), n / m)
  found = couplings.exact(cost, rows, columns, align.assign_scipy)
  np.testing.assert_allclose(found.sum(-1), rows)
  np.testing.assert_allclose(found.sum(-2), columns)
  equations = np.concatenate(
    [np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))]
  )
  masses = np.concatenate([rows[0], columns[0]])
  for c, t in zip(cost, found):
    best = optimize.linprog(c.ravel(), A_eq=equations, b_eq=masses)
    np.testing.assert_allclose(np.sum(c * t), best.fun, atol=1e-10)


@pytest.mark.parametrize(('n', 'm'), [(4, 2), (2, 4), (3, 3), (4, 1)])
def test_semi_permutations_are_the_best_of_all(n, m):
  cost = np.random.default_rng(n).normal(size=(n, m))
  found = couplings.semi_permutation(
    cost, np.ones(n), np.full(m, n / m), align.assign_scipy
  )
  best = min(semi_permutations(n, m), key=lambda t: np.sum(t * cost))
  np.testing.assert_array_equal(found, best * (1 if n >= m else n / m))
