"""Upcycled models are equal to the dense ones, where that is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import models, surgery, tree

WIDTH, E = 4, 3
KEY = jax.random.key(0)
TOKENS = np.asarray([[1, 3, 2, 0]], np.int32)


@pytest.fixture(scope='module')
def dense():
  """The parameters of a language model."""
  model = models.LanguageModel(
    vocabulary=5, width=WIDTH, heads=2, hidden=6, depth=1
  )
  shapes = jax.eval_shape(model.init, KEY, TOKENS)['params']
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), shapes)


def upcycle(params, **more):
  return surgery.upcycle(params, experts=E, width=WIDTH, key=KEY, **more)


def test_gates_that_sum_to_one_keep_the_function(dense):
  mlp = dense['block_0']['mlp']
  x = jnp.asarray(np.random.default_rng(1).normal(size=(5, WIDTH)))
  wanted = models.SwiGLU(6).apply({'params': mlp}, x)
  copies = upcycle(mlp, mlps='', deviation=1.0)

  def apply(params, **more):
    layer = models.MoE(models.SwiGLU, 6, E, **more)
    return jax.jit(layer.apply)({'params': params}, x)

  for more in ({'top_k': 1}, {'top_k': 2, 'capacity': E / 2}):
    y = apply(copies, **more)
    np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-13)
  # Gates that do not sum to 1 scale it; noise and dropped tokens change it.
  p = jax.nn.softmax(x @ copies['router']['kernel']).max(-1, keepdims=True)
  scaled = apply(copies, top_k=1, normalise=False)
  np.testing.assert_allclose(scaled, p * wanted, rtol=1e-12)
  noisy = upcycle(mlp, mlps='', deviation=1.0, noise=0.1)
  for other in (apply(noisy, top_k=1), apply(copies, top_k=1, capacity=0.2)):
    assert np.abs(other - wanted).max() > 1e-3


def test_the_model_with_experts_takes_the_parameters(dense):
  model = models.LanguageModel(
    vocabulary=5, width=WIDTH, heads=2, hidden=6, depth=1, experts=E
  )
  wanted = jax.eval_shape(model.init, KEY, TOKENS)['params']
  found = upcycle(dense)
  assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, wanted)


def test_copies_routers_and_containers(dense):
  found = upcycle(dense, noise=0.1)
  old, new = (tree.named(p) for p in (dense, found))
  copies = new['block_0/mlp/experts/up/kernel']
  source = np.asarray(old['block_0/mlp/up/kernel'])
  ratio = np.asarray(copies) / source - 1
  assert 0.05 < ratio.std() < 0.15
  assert np.abs(ratio[0] - ratio[1]).max() > 0.01
  assert (
    new['block_0/attention/out/kernel'] is old['block_0/attention/out/kernel']
  )
  router = np.asarray(new['block_0/mlp/router/kernel'])
  assert router.dtype == source.dtype
  assert 0.01 < router.std() < 0.03


def test_a_flat_dict_of_torch_names_stays_flat():
  flat = {'layers.0.mlp.up.weight': jnp.ones((6, 4), jnp.bfloat16)}
  found = upcycle(flat, mlps=r'\.mlp\.')
  assert {n: (x.shape, x.dtype.name) for n, x in found.items()} == {
    'layers.0.mlp.experts.up.weight': ((3, 6, 4), 'bfloat16'),
    'layers.0.mlp.router.kernel': ((4, 3), 'bfloat16'),
  }
  bert = {'layer.0.output.dense': jnp.ones((6, 4)), 'layer.0.norm': jnp.ones(4)}
  found = upcycle(bert, mlps=r'^(layer\.\d+\.)(intermediate|output)\.dense')
  assert sorted(found) == [
    'layer.0.experts.output.dense', 'layer.0.norm', 'layer.0.router.kernel'
  ]  # fmt: skip
  lazy = upcycle(tree.defer(flat), mlps=r'\.mlp\.')
  assert tree.on_demand(lazy['layers.0.mlp.experts.up.weight'])


def test_bad_arguments_are_named(dense):
  for more, message in (
    ({'mlps': 'no/'}, "mlps='no/'.*no leaf matches"),
    ({'mlps': 'mlp'}, "end the expression with '/'"),
    ({'noise': -1.0}, r'noise=-1\.0\): expected a number >= 0'),
    ({'experts': 0}, r'experts=0\): expected an integer >= 1'),
    ({'width': 2.0}, r'width=2\.0\): expected an integer >= 1'),
  ):
    arguments = {'experts': E, 'width': WIDTH} | more
    with pytest.raises(ValueError, match=message):
      surgery.upcycle(dense, key=KEY, **arguments)
