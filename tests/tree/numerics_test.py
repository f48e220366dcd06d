"""Numerical conventions shared by all rooms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import tree


@pytest.mark.parametrize(
  ('dtypes', 'wanted'),
  [
    (['bfloat16', 'float16'], 'float32'),
    (['uint8', 'int32'], 'float32'),
    (['float32', 'float64'], 'float64'),
    (['float8_e4m3fn'], 'float32'),
    ([], 'float32'),
  ],
)
def test_the_dtype_of_arithmetic(dtypes, wanted):
  arrays = [np.ones(2, jnp.dtype(dtype)) for dtype in dtypes]
  assert tree.wide_dtype(*arrays) == wanted
  assert tree.wide_dtype(*(x.dtype for x in arrays)) == wanted
  assert all(x.dtype == wanted for x in tree.widen(*arrays))


def test_complex_arrays_keep_their_dtype_and_are_no_features():
  x = np.ones(2, np.complex64)
  assert tree.wide_dtype(x) == 'complex64'
  with pytest.raises(
    ValueError, match=r'^features of complex64\[2\] are compl'
  ):
    tree.widen(x)


def test_widening_without_float64_takes_lists_and_float64():
  with jax.enable_x64(False):
    found = tree.widen([1.0, 2.0], np.ones(2), np.ones(2, jnp.bfloat16))
  assert [x.dtype.name for x in found] == ['float32'] * 3


def test_products_state_their_precision():
  jaxpr = jax.make_jaxpr(tree.matmul)(jnp.ones((2, 3)), jnp.ones((3, 2)))
  (dot,) = [e for e in jaxpr.eqns if e.primitive.name == 'dot_general']
  assert dot.params['precision'] == (jax.lax.Precision.HIGHEST,) * 2


@pytest.mark.parametrize('function', ['unit', 'safe_divide'])
def test_zeros_give_zeros_and_finite_gradients(function):
  zero = jnp.zeros(3)
  call = {
    'unit': lambda x: jnp.sum(tree.unit(x)),
    'safe_divide': lambda x: jnp.sum(tree.safe_divide(x, x)),
  }[function]
  assert float(call(zero)) == 0
  assert bool(jnp.isfinite(jax.grad(call)(zero)).all())


def test_directions_have_norm_one():
  x = jax.random.normal(jax.random.key(0), (4, 7))
  np.testing.assert_allclose(
    np.linalg.norm(tree.unit(x), axis=-1), 1, rtol=0, atol=1e-14
  )


def test_a_name_decides_its_key():
  key = jax.random.key(3)
  data = [jax.random.key_data(tree.name_key(key, n)) for n in ('a', 'b', 'a')]
  assert (data[0] == data[2]).all()
  assert (data[0] != data[1]).any()
  # crc32 of 'a', written out: a saved run must find its keys again.
  wanted = jax.random.fold_in(key, np.uint32(0xE8B7BE43))
  assert (data[0] == jax.random.key_data(wanted)).all()


@pytest.mark.parametrize(
  'dtype', ['bfloat16', 'float16', 'float8_e4m3fn', 'float8_e5m2']
)
def test_narrow_rounds_as_a_cast_of_numpy_and_differentiates_as_one(dtype):
  rng = np.random.default_rng(0)
  dtype = jnp.dtype(dtype)
  tiny, most = (float(getattr(jnp.finfo(dtype), n)) for n in ('tiny', 'max'))
  tiny = max(tiny, 1e-36)  # XLA takes denormal numbers of float32 for zeros
  x = rng.normal(size=400) * np.geomspace(tiny / 50, most / 8, 400)
  ties = np.asarray([1, 3, 5, 7]) * (1 + float(jnp.finfo(dtype).eps) / 2)
  x = np.float32(np.r_[x, ties, -ties, 0, most])
  found = tree.narrow(jnp.asarray(x), dtype)
  assert found.dtype == dtype
  wanted = x.astype(dtype)
  np.testing.assert_array_equal(np.asarray(found), wanted)
  trace = jax.make_jaxpr(lambda x: tree.narrow(x, dtype).astype(jnp.float32))
  assert 'reduce_precision' in str(trace(x))
  slope = jax.grad(lambda y: tree.narrow(y, dtype).astype(jnp.float32))
  assert slope(jnp.float32(tiny / 8)) == 1


def test_a_number_of_python_as_a_leaf_is_named():
  with pytest.raises(ValueError, match='a leaf is a float, not an array'):
    tree.cast({'w': np.ones(2), 'scale': 0.5}, 'bfloat16')
