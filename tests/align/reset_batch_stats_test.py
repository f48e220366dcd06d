"""The reset of batch norm moments."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align


class Normed(nn.Module):
  momentum: float = 0.99

  @nn.compact
  def __call__(self, x, train=True):
    norm = lambda: nn.BatchNorm(
      use_running_average=not train,
      momentum=self.momentum,
      param_dtype=float,
      force_float32_reductions=False,
    )
    x = nn.relu(norm()(nn.Dense(4, param_dtype=float)(x)))
    return norm()(nn.Dense(3, param_dtype=float)(x))


@pytest.mark.parametrize('momentum', [0.0, 0.9, 0.999])
def test_reset_averages_the_moments_of_batches(momentum):
  model = Normed(momentum)
  x = jnp.asarray(np.random.default_rng(1).normal(size=(30, 5)))
  variables = jax.jit(model.init)(jax.random.key(0), x)
  params, old = variables['params'], variables['batch_stats']

  def update(batch_stats, x):
    variables = {'params': params, 'batch_stats': batch_stats}
    return model.apply(variables, x, mutable=['batch_stats'])[1]['batch_stats']

  batches = [(x[:10], 0), (x[10:], 1)]
  found = align.reset_batch_stats(update, old, batches)
  y = [np.asarray(b @ params['Dense_0']['kernel']) for b, _ in batches]
  mean = (10 * y[0].mean(0) + 20 * y[1].mean(0)) / 30
  var = (10 * y[0].var(0) + 20 * y[1].var(0)) / 30
  np.testing.assert_allclose(found['BatchNorm_0']['mean'], mean, rtol=1e-9)
  np.testing.assert_allclose(found['BatchNorm_0']['var'], var, rtol=1e-9)
  whole = align.reset_batch_stats(update, found, [x])
  variables = {'params': params, 'batch_stats': whole}
  np.testing.assert_allclose(
    model.apply(variables, x, train=False),
    model.apply(variables, x, mutable=['batch_stats'])[0],
    rtol=1e-7,
  )


def test_reset_keeps_counters_and_dtypes():
  def update(s, x):
    mean = s['mean'].astype('float32') * 0.5 + x.mean(0) * 0.5
    return {'count': s['count'] + 1, 'mean': mean.astype('bfloat16')}

  old = {'count': jnp.asarray(7), 'mean': jnp.ones(2, 'bfloat16')}
  x = jnp.asarray([[1.0, 2.0], [3.0, 6.0]], 'float32')
  found = align.reset_batch_stats(update, old, [x])
  assert found['count'] == 7
  assert found['mean'].dtype == 'bfloat16'
  assert found['mean'].tolist() == [2, 4]


def test_reset_of_many_models_compiles_once():
  traced = []

  def update(params, s, x):
    traced.append(1)
    return {'mean': 0.5 * s['mean'] + 0.5 * params * x.mean(0)}

  for scale in (1.0, 3.0):
    found = align.reset_batch_stats(
      jax.tree_util.Partial(update, jnp.asarray([scale])),
      {'mean': jnp.zeros(1)},
      [jnp.asarray([[1.0], [3.0]])],
    )
    assert found['mean'].tolist() == [2 * scale]
  assert len(traced) == 1


def test_reset_refuses_moments_that_are_not_updated():
  with pytest.raises(ValueError, match="has momentum 1 for 'mean'"):
    align.reset_batch_stats(
      lambda s, x: s, {'mean': jnp.zeros(2)}, [jnp.ones((3, 2))]
    )
  with pytest.raises(ValueError, match='no batches given'):
    align.reset_batch_stats(lambda s, x: s, {'mean': jnp.zeros(2)}, [])
