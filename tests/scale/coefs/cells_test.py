"""Random cells are recomputed, not stored."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import scale

KEY = jax.random.key(0)


def layered(count: int, size: int) -> Any:
  return {
    f'block_{i}': jnp.full((size, size), 1.0 + i, jnp.float32)
    for i in range(count)
  }


def test_cells_are_not_kept_for_the_backward_pass() -> None:
  base = layered(24, 32)
  stacks = {k: jnp.ones((5, *x.shape), jnp.bfloat16) for k, x in base.items()}
  bank = scale.as_bank(base, stacks)

  def loss(coefs: Any, base: Any, bank: Any) -> Any:
    h = jnp.ones((1, 32), jnp.float32)
    for w in scale.compose(base, bank, coefs).values():
      h = jnp.tanh(h @ w)
    return h.sum()

  def temporaries(by: Any) -> float:
    coefs = scale.init(bank, by=by, key=KEY)
    program = jax.jit(jax.grad(loss)).lower(coefs, base, bank).compile()
    model = sum(x.nbytes for x in base.values())
    return program.memory_analysis().temp_size_in_bytes / model

  assert temporaries(('random', 4)) < temporaries('leaf') + 0.5


@pytest.mark.parametrize('vectors', [1, 2, 5])
def test_vectors_are_summed_in_two_halves_of_any_size(vectors: int) -> None:
  rng = np.random.default_rng(vectors)
  base = {'w': jnp.zeros((3, 4), jnp.float64)}
  stack = rng.normal(size=(vectors, 3, 4))
  bank = scale.as_bank(base, {'w': jnp.asarray(stack)})
  rows = scale.bank(base, [{'w': jnp.asarray(x)} for x in stack] + [base])
  assert isinstance(rows.leaves['w'], tuple)  # is added up row by row
  coefs = scale.init(bank, by=('random', 3), key=KEY)
  more = scale.init(rows, by=('random', 3), key=KEY)
  values = rng.normal(size=(vectors, 3))
  coefs.values['w'] = jnp.asarray(values)
  more.values['w'] = jnp.asarray(np.concatenate([values, np.ones((1, 3))]))
  found = scale.compose(base, bank, coefs)['w']
  np.testing.assert_allclose(
    found, scale.compose(base, rows, more)['w'], atol=1e-14
  )
  gradient = {'w': jnp.asarray(rng.normal(size=(3, 4)))}
  pulled = scale.pull_back(bank, gradient, coefs)['w']
  assert pulled.shape == (vectors, 3)
  np.testing.assert_allclose(
    pulled, scale.pull_back(rows, gradient, more)['w'][:-1], atol=1e-14
  )
