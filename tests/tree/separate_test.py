"""Copies of rows are the rows, and nothing of a place is in their kernels."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import traces
from wsl import tree
from wsl.tree import _separate

PLACES = (1, 0, 1, 2)
ROWS = np.asarray([[1.5, -2.0], [0.0, 0.0], [-0.0, np.inf]])


@pytest.mark.parametrize('loop', [False, True])
@pytest.mark.parametrize('dtype', ['float32', 'float16', 'int32', 'uint32'])
def test_copies_are_the_rows(loop, dtype, monkeypatch):
  if loop:  # as on a GPU
    monkeypatch.setattr(
      jax.lax, 'platform_dependent', lambda *xs, cpu, default: default(*xs)
    )
  rows = jnp.asarray(np.nan_to_num(ROWS, posinf=9.0), dtype)
  found = jax.jit(lambda x: tree.separate(x, PLACES))(rows)
  for x, place in zip(found, PLACES, strict=True):
    assert x.dtype == rows.dtype
    np.testing.assert_array_equal(x, rows[place])
  many = jax.jit(jax.vmap(lambda x: tree.separate(x, PLACES)))
  np.testing.assert_array_equal(many(rows[None])[3][0], rows[2])


@pytest.mark.parametrize('loop', [False, True])
def test_copies_of_floats_have_derivatives(loop, monkeypatch):
  if loop:
    monkeypatch.setattr(
      jax.lax, 'platform_dependent', lambda *xs, cpu, default: default(*xs)
    )

  def square(x):
    copies = tree.separate(x, PLACES)
    return sum(float(i) * (y**2).sum() for i, y in enumerate(copies))

  x = jnp.arange(6.0, dtype='float32').reshape(3, 2)
  # Copy 1 is of row 0, copies 0 and 2 of row 1, copy 3 of row 2.
  weights = np.asarray([[1], [0 + 2], [3]], np.float32)
  np.testing.assert_allclose(jax.jit(jax.grad(square))(x), 2 * weights * x)


def test_on_a_gpu_a_copy_takes_few_operations_of_one_loop():
  def operations(number):
    copies = jax.jit(lambda x: tree.separate(x, (0,) * number))
    x = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    lowered = copies.trace(x).lower(lowering_platforms=('cuda',))
    return re.findall(r'stablehlo\.(\w+)', lowered.as_text())

  few, many = operations(2), operations(12)
  assert few.count('while') == many.count('while') == 1
  assert (len(many) - len(few)) / 10 <= 8


def test_hyperparameters_are_copied_if_they_are_small_arrays():
  hyper = {'w': jnp.ones(3), 'big': jnp.ones(1 << 13), 'x': 2.0, 'mode': 'a'}

  def copied(w, big):
    given = hyper | {'w': w, 'big': big}
    each = _separate.hyper_for_leaves(given, [0.0, 0.0])
    assert all(x.keys() == hyper.keys() for x in each)
    assert each[0]['w'] is not w
    assert each[0]['w'] is not each[1]['w']
    assert each[1]['big'] is big
    assert _separate.hyper_for_leaves(given, [0.0]) == [given]
    return each[1]['w']

  jax.jit(copied).lower(hyper['w'], hyper['big'])
  each = _separate.hyper_for_leaves(hyper, [0.0, jnp.ones(2)])
  assert all(x['w'] is hyper['w'] for x in each)


@pytest.mark.parametrize('loop', [False, True])
@traces.fresh()
def test_known_arrays_are_copied_for_leaves_in_a_trace(loop, monkeypatch):
  if loop:
    monkeypatch.setattr(
      jax.lax, 'platform_dependent', lambda *xs, cpu, default: default(*xs)
    )
  given = np.asarray([0.5, -0.0, 3.0], np.float32)
  rows = jax.jit(lambda x: tree.at_leaves(given, [x, x, tree.defer(x)]))
  text = rows.trace(jnp.ones((2, 1), jnp.bfloat16))
  text = text.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('stablehlo.while') == 1
  for found in rows(jnp.ones((2, 1))):
    np.testing.assert_array_equal(found, given)
