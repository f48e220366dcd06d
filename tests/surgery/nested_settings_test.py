"""Slices and nested training in float32 and bfloat16, as users run JAX.

``tests/defaults_test.py`` runs this file a second time with JAX's defaults.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.surgery import nested_networks as networks
from wsl import align, models, surgery, train, tree

SYMMETRY = networks.symmetry()
SIZES = surgery.granularities(
  SYMMETRY, groups=f'{networks.OF_HIDDEN}|{networks.OF_HEADS}', factors=(1, 2)
)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_slices_equal_masks_and_keep_the_dtype(dtype: Any) -> None:
  params = {n: jnp.asarray(x, dtype) for n, x in networks.params().items()}
  tables = [
    surgery.weight_importance(params, symmetry=SYMMETRY),
    surgery.gradient_importance(params, params, symmetry=SYMMETRY),
  ]
  assert {t.dtype for table in tables for t in table.values()} == {
    jnp.dtype('float32')
  }
  order = surgery.importance_order(tables[0], symmetry=SYMMETRY)
  params = align.permute(params, order, symmetry=SYMMETRY)
  cut, whole = (
    fn(params, SIZES[1], symmetry=SYMMETRY)
    for fn in (surgery.slice, surgery.masked)
  )
  assert {x.dtype for x in cut.values()} == {jnp.dtype(dtype)}
  wide = lambda p: {n: np.asarray(x, np.float64) for n, x in p.items()}
  a, b = (
    networks.network(wide(p), networks.inputs(), xp=np) for p in (cut, whole)
  )
  np.testing.assert_allclose(a, b, rtol=1e-12)


def test_nested_training_learns() -> None:
  x = networks.inputs().astype(np.float32)
  loss = surgery.nested_loss(
    lambda p, x, key: jnp.mean(jnp.square(networks.network(p, x) - 1.0)),
    SIZES,
    symmetry=SYMMETRY,
    draws=1,
    always=(0,),
  )
  params = {n: 0.1 * x.astype(np.float32) for n, x in networks.params().items()}
  optimizer = optax.adam(1e-2)
  state = train.start(params, optimizer=optimizer)
  state, losses = train.advance(
    loss, state, x, optimizer=optimizer, steps=30, batch_size=len(x),
    key=jax.random.key(0),
  )  # fmt: skip
  assert losses[-1] < losses[0] / 2
  assert {leaf.dtype for leaf in state.params.values()} == {
    jnp.dtype('float32')
  }


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_kernels_and_heads(dtype: Any) -> None:
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  kernel = draw(5, 5, 2, 2)
  given = surgery.kernel_transforms((5, 3), dtype=dtype)
  found = surgery.elastic_kernel(kernel, given, side=3)
  np.testing.assert_array_equal(found, kernel[1:4, 1:4])
  assert found.dtype == kernel.dtype
  h, w = draw(3, 4), draw(4, 5)
  logits = surgery.matryoshka_logits(h, w, sizes=(2, 4))
  assert logits.dtype == jnp.float32
  a, b = (np.asarray(y, np.float64) for y in (h, w))
  np.testing.assert_allclose(logits[0], a[:, :2] @ b[:2], rtol=1e-4, atol=1e-5)
  loss = surgery.matryoshka_loss(logits, jnp.zeros(3, jnp.int32))
  assert loss.dtype == jnp.float32


def test_a_slice_of_a_vision_transformer_runs_in_a_smaller_one() -> None:
  """Whole heads and hidden units, of each block its own number."""
  whole = models.ViT(
    outputs=3, patch=2, width=8, depth=2, heads=4, expansion=2, pool='mean'
  )
  x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
  shapes = jax.eval_shape(whole.init, jax.random.key(0), x)
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )
  symmetry = align.find_symmetry(whole.apply, shapes, x)
  names = tree.in_order(g.name for g in symmetry.groups if not g.outer)
  heads = [name for name in names if 'attention/key/bias' in name]
  hidden = [name for name in names if 'mlp' in name]
  widths = dict.fromkeys(heads, 3) | dict(zip(hidden, (5, 9)))
  size = surgery.slice_size(symmetry, widths=widths)
  small = whole.clone(heads=3, head_size=2, hidden=(5, 9))
  found = jax.jit(
    lambda p: small.apply(surgery.slice(p, size, symmetry=symmetry), x)
  )(params)
  wanted, other = jax.jit(
    lambda p: jax.vmap(lambda p: whole.apply(p, x))(
      tree.stack([surgery.masked(p, size, symmetry=symmetry), p])
    )
  )(params)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
  assert np.abs(wanted - other).max() > 0.1
