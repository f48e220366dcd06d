"""Adapters: their formula, their trainable leaves, folding and resizing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch


def draw(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def full() -> stitch.Adapter:
  """An adapter with all parts but anchors."""
  norm = lambda d, seed: stitch.Norm(*draw(4, d, seed=seed) ** 2)
  return stitch.Adapter(
    weight=draw(3, 5),
    bias=draw(5, seed=1),
    down=draw(3, 2, seed=2),
    up=draw(2, 5, seed=3),
    before=norm(3, 4),
    after=norm(5, 5),
    ridge=jnp.asarray(0.1),
    alpha=0.5,
  )


def normalized(norm, x):
  x = (x - norm.mean) / np.sqrt(norm.variance + 1e-5)
  return norm.scale * x + norm.offset


def test_all_parts_follow_the_formula() -> None:
  adapter = jax.tree.map(np.asarray, full())
  x = np.asarray(draw(7, 3, seed=6))
  weight = adapter.weight + 0.5 / 2 * adapter.down @ adapter.up
  h = normalized(adapter.before, x) @ weight + adapter.bias
  found = stitch.apply_adapter(full(), jnp.asarray(x))
  np.testing.assert_allclose(found, normalized(adapter.after, h), rtol=1e-12)


def test_an_adapter_without_parts_is_the_identity() -> None:
  x = draw(2, 3)
  assert stitch.apply_adapter(stitch.Adapter(), x).tolist() == x.tolist()
  assert not jax.tree.leaves(stitch.Adapter())


def test_norms_without_moments_use_those_of_the_batch() -> None:
  adapter = stitch.set_norm_moments(full(), None)
  assert adapter.before.mean is None
  x = draw(2, 4, 4, 3)
  found = stitch.apply_adapter(adapter, x)
  rows = np.asarray(found).reshape(-1, 5)
  np.testing.assert_allclose(rows.mean(0), adapter.after.offset, atol=1e-10)
  np.testing.assert_allclose(
    rows.std(0), np.abs(adapter.after.scale), rtol=1e-2
  )
  # Outputs depend on the batch unless the moments are fixed.
  first = stitch.apply_adapter(adapter, x[:1])
  assert np.abs(first - found[:1]).max() > 1e-3
  fixed = [stitch.apply_adapter(full(), v) for v in (x, x[:1])]
  np.testing.assert_allclose(fixed[0][:1], fixed[1], rtol=1e-12)


def test_the_old_name_of_set_norm_moments_warns() -> None:
  with pytest.warns(DeprecationWarning, match=r'use stitch\.set_norm_moments'):
    old = stitch.settle(full(), None)
  assert old.before.mean is None


def test_only_trainable_leaves_have_gradients() -> None:
  adapter, x = full(), draw(7, 3, seed=6)
  loss = lambda a: jnp.sum(stitch.apply_adapter(a, x) ** 2)
  gradient = jax.grad(loss)(adapter)
  moves = jax.tree.map(lambda g: bool(jnp.any(g != 0)), gradient)
  assert jax.tree.leaves(moves) == jax.tree.leaves(stitch.trainable(adapter))
  assert not moves.weight
  assert moves.down
  assert not moves.before.mean
  plain = stitch.Adapter(weight=draw(3, 5))
  assert stitch.trainable(plain).weight


def test_anchors_make_the_input_relative_and_are_frozen() -> None:
  anchors = stitch.anchors(draw(4, 3, seed=1), ids=range(4))
  adapter = stitch.Adapter(weight=draw(4, 2), anchors=anchors)
  x = draw(6, 3, seed=2)
  found = stitch.apply_adapter(adapter, x)
  expected = stitch.relative(x, anchors) @ adapter.weight
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  again = stitch.apply_adapter(adapter, 3 * x)
  np.testing.assert_allclose(again, found, rtol=1e-12)
  gradient = jax.grad(lambda a: jnp.sum(stitch.apply_adapter(a, x)))(adapter)
  assert not jnp.any(gradient.anchors.features)
  assert stitch.trainable(adapter).anchors.features is False


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_dtype_of_the_features_is_kept(dtype) -> None:
  x = jnp.asarray(draw(2, 3), dtype)
  found = stitch.apply_adapter(full(), x)
  assert found.dtype == dtype
  wide = stitch.apply_adapter(full(), x.astype(jnp.float64))
  assert found.tolist() == wide.astype(dtype).tolist()


def test_folding_keeps_the_function() -> None:
  x = draw(7, 3, seed=6)
  folded = stitch.fold(full())
  assert folded.down is None
  assert folded.before is None
  assert float(folded.ridge) == 0.1
  np.testing.assert_allclose(
    stitch.apply_adapter(folded, x),
    stitch.apply_adapter(full(), x),
    rtol=1e-11,
  )


def test_errors_of_fold() -> None:
  with pytest.raises(ValueError, match=r'fix them with set_norm_moments'):
    stitch.fold(stitch.set_norm_moments(full(), None))
  with pytest.raises(ValueError, match='without a weight'):
    stitch.fold(stitch.Adapter())


def test_resizing_keeps_means_and_linear_functions_of_position() -> None:
  rows = jnp.arange(4.0)[:, None] * jnp.ones((1, 4))
  x = rows.reshape(1, 4, 4, 1)
  smaller = stitch.resize(x, (2, 2))
  assert smaller.shape == (1, 2, 2, 1)
  np.testing.assert_allclose(smaller.mean(), 1.5, rtol=1e-12)
  np.testing.assert_allclose(smaller[0, :, 0, 0], smaller[0, :, 1, 0])
  tokens = stitch.resize(x.reshape(1, 16, 1), (4,))
  np.testing.assert_allclose(tokens.ravel(), smaller.ravel(), rtol=1e-12)
  assert stitch.resize(x, (16,)).ravel().tolist() == x.ravel().tolist()
  assert stitch.resize(x, ()).tolist() == [[1.5]]
  assert stitch.resize(smaller, (4, 4)).shape == x.shape
  assert stitch.resize(x, (4, 4)) is x


@pytest.mark.parametrize(
  ('shape', 'grid', 'message'),
  [
    ((2, 3), (4, 4), r'\[2, 3\] have no places to resize to \[4, 4\]'),
    ((2, 6, 3), (4,), r'places \[6\] are neither'),
    ((2, 4, 3), (3,), r'places \[3\] are neither'),
  ],
)
def test_errors_of_resize(shape, grid, message) -> None:
  with pytest.raises(ValueError, match=message):
    stitch.resize(jnp.ones(shape), grid)


def test_an_adapter_with_a_grid_resizes_first() -> None:
  x = draw(2, 4, 4, 3)
  adapter = dataclasses.replace(full(), grid=(2, 2))
  found = stitch.apply_adapter(adapter, x)
  expected = stitch.apply_adapter(full(), stitch.resize(x, (2, 2)))
  np.testing.assert_allclose(found, expected, rtol=1e-12)
