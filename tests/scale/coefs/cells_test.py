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


@pytest.mark.cpu_only('it measures the memory of a compiled program')
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


def partitioned(count: int = 3) -> tuple[Any, Any, Any]:
  """A base, task vectors, and a partition of 'w' into K cells."""
  rng = np.random.default_rng(count)
  base = {'w': jnp.asarray(rng.normal(size=(3, 4))), 'b': jnp.zeros(4)}
  models = [
    {'w': jnp.asarray(rng.normal(size=(3, 4))), 'b': jnp.ones(4)}
    for _ in range(2)
  ]
  cells = rng.permutation(np.arange(12) % count).reshape(3, 4)
  return base, models, cells


def test_given_masks_partition_the_entries() -> None:
  base, models, cells = partitioned()
  masks = np.stack([cells == k for k in range(3)])
  bank = scale.bank(base, models)
  values = np.random.default_rng(1).normal(size=(2, 3))
  deltas = np.stack([np.asarray(m['w'] - base['w']) for m in models])
  expected = base['w'] + np.einsum('ik,kab,iab->ab', values, masks, deltas)
  gradient = np.random.default_rng(2).normal(size=(3, 4))
  wanted = np.einsum('ab,kab,iab->ik', gradient, masks, deltas)
  for given in (masks, cells, jnp.asarray(cells, jnp.uint8)):
    coefs = scale.init(bank, by=[('w', None, ('masks', given)), ('', None)])
    assert coefs['w'].shape == (2, 3)
    coefs.values['w'] = jnp.asarray(values)
    for compose in (scale.compose, jax.jit(scale.compose)):
      found = compose(base, bank, coefs)['w']
      np.testing.assert_allclose(found, expected, atol=1e-14)
    zeros = {'w': jnp.asarray(gradient), 'b': jnp.zeros(4)}
    pulled = scale.pull_back(bank, zeros, coefs)['w']
    np.testing.assert_allclose(pulled, wanted, atol=1e-14)
    loss = lambda c: jnp.sum(scale.compose(base, bank, c)['w'] * gradient)
    np.testing.assert_allclose(jax.grad(loss)(coefs)['w'], wanted, atol=1e-14)
    # Rows of vectors that lack the leaf are added one by one.
    rows = scale.bank(base, [*models, {'w': None, 'b': None}])
    more = scale.init(rows, by=[('w', None, ('masks', given)), ('', None)])
    more.values['w'] = jnp.concatenate([jnp.asarray(values), jnp.ones((1, 3))])
    found = scale.compose(base, rows, more)['w']
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_coefficients_of_equal_masks_share_a_program() -> None:
  base, models, cells = partitioned()
  bank = scale.bank(base, models)
  rule = lambda cells: [('w', None, ('masks', cells)), ('', None)]
  traced = []

  @jax.jit
  def total(coefs: Any) -> Any:
    traced.append(coefs)
    return jnp.sum(scale.compose(base, bank, coefs)['w'])

  total(scale.init(bank, by=rule(cells)))
  total(scale.init(bank, by=rule(cells.copy())))
  assert len(traced) == 1
  total(scale.init(bank, by=rule(cells[::-1])))
  assert len(traced) == 2


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (np.ones((2, 3, 4), bool), "leaf 'w': 12 entries are in no mask or in sev"),
    (np.zeros((4, 3), int), r"'w' are int64\[4, 3\]: expected bool \[K, \*\[3"),
    (np.zeros((3, 4)), r'are float64\[3, 4\]'),
    (-np.ones((3, 4), int), r'numbers from 0'),
  ],
)
def test_masks_that_are_no_partition_are_refused(given, message) -> None:
  base, models, _ = partitioned()
  with pytest.raises(ValueError, match=message):
    scale.init(
      scale.bank(base, models), by=[('w', None, ('masks', given)), ('', None)]
    )
