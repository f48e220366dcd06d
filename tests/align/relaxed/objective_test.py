"""The objective of many models: gradients and exact line searches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.relaxed.many_models import (
  draw_matrices,
  draw_models,
  NESTED,
  objective_of,
)
from wsl import align
from wsl.align._relaxed import frank_wolfe, line_search, objective


def test_gradients_equal_those_of_the_sum_over_pairs():
  symmetry = NESTED
  models, matrices = draw_models(symmetry, 3), draw_matrices(symmetry, 3, 0)
  names = tuple(g.name for g in symmetry.groups)
  sums = objective.universe_sum(models, matrices, symmetry=symmetry)
  pairs = jax.jit(
    jax.value_and_grad(lambda m: objective_of(symmetry, models, m))
  )
  wanted, wanted_gradients = pairs(matrices)
  for chosen in ([0, 1, 2], [1]):
    value, gradients, _ = objective.gradient(
      models, matrices, sums, np.asarray(chosen), symmetry=symmetry, names=names
    )
    if len(chosen) == 3:
      np.testing.assert_allclose(value, wanted, rtol=1e-12)
    for name, gradient in gradients.items():
      np.testing.assert_allclose(
        gradient,
        np.asarray(wanted_gradients[name])[chosen],
        rtol=1e-10,
        atol=1e-12,
      )


@pytest.mark.parametrize('chosen', [[1], [0, 1, 2]])
def test_line_form_and_line_search_along_a_segment(chosen):
  symmetry = NESTED
  models, matrices = draw_models(symmetry, 3), draw_matrices(symmetry, 3, 1)
  draws = [
    align.random(symmetry, jax.random.key(i), gauges=('permutation',))
    for i in chosen
  ]
  ends = frank_wolfe.harden_each(draws, symmetry, np.dtype(np.float64))
  sums = objective.universe_sum(models, matrices, symmetry=symmetry)
  chosen, grid = np.asarray(chosen), np.linspace(0.0, 1.0, 201)
  for names in objective.groups_by_depth(symmetry, models):
    how = {'symmetry': symmetry, 'names': names}
    _, _, start = objective.gradient(models, matrices, sums, chosen, **how)
    form, changes = objective.line_form(
      models, matrices, ends, start, sums, chosen, **how
    )
    step, gain, weights = line_search.line_search(np.asarray(form))

    @jax.jit
    @jax.vmap
    def along(t, names=names):
      new = {
        n: matrices[n].at[chosen].add(t * (ends[n] - matrices[n][chosen]))
        for n in names
      }
      return objective_of(symmetry, models, matrices | new)

    values = np.asarray(along(jnp.asarray([*grid, step])))
    scale = np.abs(values).max()
    assert gain >= np.max(values) - values[0] - 1e-10 * scale
    np.testing.assert_allclose(values[-1], values[0] + gain, atol=1e-10 * scale)
    # The incremental update of the sum agrees with the new matrices.
    some = {n: ends[n] for n in names}
    new, new_sums = objective.take_step(
      matrices, some, sums, changes, chosen, step, weights
    )
    found = objective.universe_sum(models, new, symmetry=symmetry)
    for leaf, x in found.items():
      np.testing.assert_allclose(x, new_sums[leaf], atol=1e-10)


@pytest.mark.parametrize('size', [2, 3, 4])
def test_line_search_against_a_dense_grid(size):
  rng = np.random.default_rng(size)
  grid = np.linspace(0.0, 1.0, 100_001)
  for _ in range(20):
    form = rng.normal(size=(size, size))
    weights = [np.ones_like(grid)]
    for a in range(1, size):
      nodes = [b / (size - 1) for b in range(size) if b != a]
      at = a / (size - 1)
      weights += [np.prod([(grid - b) / (at - b) for b in nodes], axis=0)]
    values = np.einsum('ag,ab,bg->g', weights, form, weights) - form[0, 0]
    step, gain, _ = line_search.line_search(form)
    assert 0 <= step <= 1
    assert gain >= values.max() - 1e-12
    np.testing.assert_allclose(gain, values.max(), atol=1e-7)
