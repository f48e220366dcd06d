"""Slices and nested training in float32 and bfloat16, as users run JAX.

``tests/defaults_test.py`` runs this file a second time with JAX's defaults.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.surgery import nested_networks as networks
from wsl import align, surgery, train

SYMMETRY = networks.symmetry()
SIZES = surgery.granularities(
  SYMMETRY, groups=f'{networks.OF_HIDDEN}|{networks.OF_HEADS}', factors=(1, 2)
)


def test_slices_equal_masks_and_keep_the_dtype() -> None:
  dtype = jnp.bfloat16
  params = {n: jnp.asarray(x, dtype) for n, x in networks.params().items()}
  table = surgery.weight_importance(
    params, symmetry=SYMMETRY, leaves='up|bias|down'
  )
  assert table[networks.OF_HIDDEN].dtype == jnp.float32
  order = surgery.importance_order(
    {networks.OF_HIDDEN: table[networks.OF_HIDDEN]}, symmetry=SYMMETRY
  )
  params = align.permute(params, order, symmetry=SYMMETRY)
  cut, whole = (
    fn(params, SIZES[1], symmetry=SYMMETRY)
    for fn in (surgery.slice, surgery.mask_units)
  )
  assert {x.dtype for x in cut.values()} == {jnp.dtype(dtype)}
  wide = lambda p: {n: np.asarray(x, np.float64) for n, x in p.items()}
  a, b = (
    networks.network(wide(p), networks.inputs(), xp=np) for p in (cut, whole)
  )
  np.testing.assert_allclose(a, b, rtol=1e-12)


def test_nested_training_compiles_once_and_fits_every_size() -> None:
  """Units of a perceptron, one random size in each step."""
  h, x = align.Factor('h', 8), align.Factor('x', 3, 'an input')
  symmetry = align.Symmetry(
    (h, x), (('down', ((('h',),), (('x',),))), ('up', ((('x',),), (('h',),))))
  )
  sizes = surgery.granularities(symmetry, factors=(1, 2, 4, 8))
  rng, traces = np.random.default_rng(0), []
  data = rng.normal(size=(6, 3)).astype(np.float32)
  params = {
    'down': rng.normal(size=(8, 3)).astype(np.float32),
    'up': rng.normal(size=(3, 8)).astype(np.float32),
  }

  def error(p: Any, x: Any, *, xp: Any = np) -> Any:
    return xp.square(xp.tanh(x @ p['up']) @ p['down'] - x).mean()

  def loss_fn(p: Any, x: Any, key: Any) -> Any:
    traces.append(1)
    return error(p, x, xp=jnp)

  loss = surgery.nested_loss(loss_fn, sizes, symmetry=symmetry, draws=1)
  optimizer = optax.sgd(0.1)
  state = train.start(params, optimizer=optimizer)
  counts = []
  for _ in range(2):
    state, _ = train.advance(
      loss, state, data, optimizer=optimizer, steps=60, batch_size=6,
      key=jax.random.key(0),
    )  # fmt: skip
    counts.append(len(traces))
  assert counts[0] == counts[1] <= 2
  after = jax.tree.map(np.asarray, state.params)
  assert after['up'].dtype == np.float32
  for size in sizes:
    n = size.widths['h']
    cut = lambda p, n=n: {'up': p['up'][:, :n], 'down': p['down'][:n]}
    assert error(cut(after), data) < error(cut(params), data)


def test_kernels_and_heads() -> None:
  dtype, rng = jnp.bfloat16, np.random.default_rng(0)
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
