"""Sums over a bank cast, copy and store no more than a row of it.

XLA is free to hoist a cast out of a loop, to share a draw between the forward
and the backward pass, and to fold a draw from a known seed into a constant.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import scale

pytestmark = pytest.mark.cpu_only('it reads the compiled program')
T, D = 8, 64
BASE = {name: jnp.ones((D, D), jnp.float32) for name in 'ab'}
LEAF = D * D
KEY = jax.random.key(0)
BY = ('leaf', ('channel', -1), ('random', 4))


def bank_of(dtype: Any, kind: str = 'stack') -> scale.Bank:
  """Returns a bank: a stack, low-rank factors, or rows with an absent one."""
  if kind == 'stack':
    stacks = {name: jnp.ones((T, D, D), dtype) for name in BASE}
    return scale.as_bank(BASE, stacks)
  if kind == 'factors':
    factor = scale.LowRank(jnp.ones((D, 2), dtype), jnp.ones((2, D), dtype))
    return scale.bank(BASE, [dict.fromkeys(BASE, factor)] * T)
  model = {name: x + 1 for name, x in BASE.items()}
  return scale.bank(BASE, [model, model, dict.fromkeys(BASE)], dtype=dtype)


def loss(coefs: Any, base: Any, bank: Any) -> Any:
  composed = scale.compose(base, bank, coefs)
  return sum(jnp.sum(jnp.sin(x)) for x in composed.values())


def leaves_stored(fn: Any, *args: Any) -> float:
  """Returns the memory of temporaries, in float32 leaves."""
  program = jax.jit(fn).lower(*args).compile()
  return program.memory_analysis().temp_size_in_bytes / (4 * LEAF)


@pytest.mark.parametrize('by', ['leaf', ('channel', -1)])
def test_a_bfloat16_stack_is_cast_one_row_at_a_time(by: Any) -> None:
  found = []
  for dtype in (jnp.bfloat16, jnp.float32):
    bank = bank_of(dtype)
    coefs = scale.init(bank, by=by)
    compose = leaves_stored(scale.compose, BASE, bank, coefs)
    slope = leaves_stored(jax.grad(loss), coefs, BASE, bank)
    found.append((compose, slope))
  np.testing.assert_allclose(*found, atol=0.1)
  assert found[0][0] < 1.5
  assert found[0][1] < 3.5


def test_the_check_detects_a_cast_of_the_stack() -> None:
  """A sort of the rows needs all of them in float32."""

  def total(stack: Any, coefs: Any) -> Any:
    rows = jnp.sort(stack.astype('float32'), axis=0)
    add = lambda total, step: (total + step[0] * step[1], 0)
    return jax.lax.scan(add, BASE['a'], (coefs, rows))[0]

  stack = bank_of(jnp.bfloat16).leaves['a']
  assert leaves_stored(total, stack, jnp.ones(T, jnp.float32)) >= T


def constants(fn: Any, *args: Any) -> list[int]:
  """Returns the number of entries of each constant of a compiled program."""
  text = jax.jit(fn).lower(*args).compile().as_text()
  shapes = re.findall(r'= \w+\[([\d,]*)\]\S* constant\(', text)
  return [int(np.prod([int(d) for d in s.split(',') if d])) for s in shapes]


@pytest.mark.parametrize('kind', ['stack', 'factors', 'rows'])
@pytest.mark.parametrize('by', BY)
def test_cells_of_known_seeds_are_no_constants(kind: str, by: Any) -> None:
  bank = bank_of(jnp.float32, kind)
  coefs = scale.init(bank, by=by, key=KEY)
  gradient = jax.tree.map(jnp.sin, BASE)
  known = [
    constants(lambda base, bank: scale.compose(base, bank, coefs), BASE, bank),
    constants(lambda g, k: scale.pull_back(k, g, coefs), gradient, bank),
    constants(jax.grad(loss), coefs, BASE, bank),
  ]
  assert all(found and max(found) < LEAF / 4 for found in known)


def test_the_check_detects_a_constant_of_the_size_of_a_leaf() -> None:
  table = np.random.default_rng(0).normal(size=(D, D))
  assert max(constants(lambda x: x + table, jnp.ones((D, D)))) == LEAF
