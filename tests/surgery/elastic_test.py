"""Elastic kernels and Matryoshka heads."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import surgery

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(7, 7, 2, 3))


def transforms() -> dict[str, np.ndarray]:
  return {s: RNG.normal(size=(int(s) ** 2,) * 2) for s in ('3', '5')}


def step(kernel: np.ndarray, matrix: np.ndarray) -> np.ndarray:
  """Crops the border and transforms each channel's entries."""
  centre = kernel[1:-1, 1:-1]
  side = len(centre)
  return np.einsum(
    'pq,qio->pio', matrix, centre.reshape(side * side, 2, 3)
  ).reshape(centre.shape)


def test_identity_transforms_crop() -> None:
  given = surgery.kernel_transforms((3, 7, 5))
  for side in (7, 5, 3):
    margin = (7 - side) // 2
    found = surgery.elastic_kernel(KERNEL, given, side=side)
    wanted = KERNEL[margin : margin + side, margin : margin + side]
    np.testing.assert_array_equal(found, wanted)


def test_transforms_follow_each_other_and_share_channels() -> None:
  given = transforms()
  five = step(KERNEL, given['5'])
  three = step(five, given['3'])
  for side, wanted in ((7, KERNEL), (5, five), (3, three)):
    found = surgery.elastic_kernel(KERNEL, given, side=side)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
  torch = surgery.elastic_kernel(
    KERNEL.transpose(3, 2, 0, 1), given, side=3, axes=(2, 3)
  )
  np.testing.assert_allclose(torch, three.transpose(3, 2, 0, 1), rtol=1e-12)
  low = surgery.elastic_kernel(jnp.asarray(KERNEL, jnp.bfloat16), given, side=3)
  assert low.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    np.asarray(low, np.float64), three, rtol=0.02, atol=0.3
  )


@pytest.mark.parametrize('stride', [1, 2])
def test_a_padded_kernel_convolves_as_the_small_one(stride: int) -> None:
  given, x = transforms(), RNG.normal(size=(1, 8, 8, 2))
  convolve = lambda k: jax.lax.conv_general_dilated(
    x, k, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  small, padded = (
    surgery.elastic_kernel(KERNEL, given, side=3, padded=padded)
    for padded in (False, True)
  )
  assert padded.shape == KERNEL.shape
  np.testing.assert_allclose(convolve(padded), convolve(small), rtol=1e-10)


@pytest.mark.parametrize('heads', ['shared', 'separate'])
def test_logits_of_prefixes(heads: str) -> None:
  sizes, h = (1, 3, 4), RNG.normal(size=(5, 2, 4))
  shape = () if heads == 'shared' else (3,)
  kernel, bias = RNG.normal(size=(*shape, 4, 6)), RNG.normal(size=(*shape, 6))
  found = surgery.matryoshka_logits(
    jnp.asarray(h), jnp.asarray(kernel), jnp.asarray(bias), sizes=sizes
  )
  kernels = np.broadcast_to(kernel, (3, 4, 6))
  biases = np.broadcast_to(bias, (3, 6))
  for z, m, w, b in zip(found, sizes, kernels, biases):
    np.testing.assert_allclose(z, h[..., :m] @ w[:m] + b, rtol=1e-12)


def test_the_loss_sums_cross_entropies() -> None:
  logits, labels = RNG.normal(size=(2, 5, 3)), RNG.integers(3, size=5)
  weights: list[Any] = [1.0, 0.5]
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  each = [-np.log(q[np.arange(5), labels]).mean() for q in p]
  for given, wanted in ((None, sum(each)), (weights, np.dot(weights, each))):
    found = surgery.matryoshka_loss(
      jnp.asarray(logits), jnp.asarray(labels), weights=given
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
