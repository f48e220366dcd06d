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
MANY = PLACES * 9  # more than the results of one kernel
ROWS = np.asarray([[1.5, -2.0], [0.0, 0.0], [-0.0, np.inf]])


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'int32', 'uint32'])
def test_copies_are_the_rows(dtype):
  rows = jnp.asarray(np.nan_to_num(ROWS, posinf=9.0), dtype)
  found = jax.jit(lambda x: tree.separate(x, MANY))(rows)
  for x, place in zip(found, MANY, strict=True):
    assert x.dtype == rows.dtype
    np.testing.assert_array_equal(x, rows[place])
  many = jax.jit(jax.vmap(lambda x: tree.separate(x, PLACES)))
  np.testing.assert_array_equal(many(rows[None])[3][0], rows[2])


def test_copies_of_floats_have_derivatives():
  def square(x):
    copies = tree.separate(x, PLACES)
    return sum(float(i) * (y**2).sum() for i, y in enumerate(copies))

  x = jnp.arange(6.0, dtype='float32').reshape(3, 2)
  # Copy 1 is of row 0, copies 0 and 2 of row 1, copy 3 of row 2.
  weights = np.asarray([[1], [0 + 2], [3]], np.float32)
  np.testing.assert_allclose(jax.jit(jax.grad(square))(x), 2 * weights * x)


def test_on_a_gpu_a_copy_takes_few_operations_and_no_loop():
  def operations(number):
    copies = jax.jit(lambda x: tree.separate(x, (0,) * number))
    x = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    lowered = copies.trace(x).lower(lowering_platforms=('cuda',))
    return re.findall(r'stablehlo\.(\w+)', lowered.as_text())

  few, many = operations(2), operations(12)
  assert few.count('reduce') == many.count('reduce') == 1
  assert not {'while', 'case'} & {*many}
  assert (len(many) - len(few)) / 10 <= 5


@pytest.mark.cpu_only('it reads the compiled program')
def test_no_place_is_in_the_kernels_that_use_the_copies():
  """XLA keeps the copies, and does not take the slices into the kernels."""

  def scaled(table, xs):
    return [x * r for x, r in zip(xs, tree.separate(table, range(len(xs))))]

  given = jnp.ones((3, 1)), [jnp.ones(5)] * 3
  text = jax.jit(scaled).lower(*given).compile().as_text()
  body = r'^%\S+ \(.*?^}'
  kernels = [x for x in re.findall(body, text, re.M | re.S) if 'multiply' in x]
  assert len(kernels) == 3
  assert not any('slice' in kernel for kernel in kernels)


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


@traces.fresh()
def test_known_arrays_stay_constants_of_the_leaves_in_a_trace():
  given = np.asarray([0.5, -0.0, 3.0], np.float32)
  rows = jax.jit(lambda x: tree.at_leaves(given, [x, x, tree.defer(x)]))
  text = rows.trace(jnp.ones((2, 1), jnp.bfloat16))
  text = text.lower(lowering_platforms=('cuda',)).as_text()
  assert not re.search(r'stablehlo\.(while|reduce)', text)
  for found in rows(jnp.ones((2, 1))):
    np.testing.assert_array_equal(found, given)
