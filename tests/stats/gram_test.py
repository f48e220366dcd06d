import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.stats import traced
from wsl import stats, tree, types


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def moment(rows):
  rows = np.asarray(rows)
  return rows.T @ rows / len(rows)


def as_matrix(weight, axes):
  """[in, out]: the input axes first, flattened; the rest flattened."""
  weight = np.moveaxis(np.asarray(weight), axes, range(len(axes)))
  return weight.reshape(int(np.prod(weight.shape[: len(axes)])), -1)


def assert_explains(gram, weight, outputs):
  """Trace(W^T G W) is the mean of |output|^2 over the rows, bias left out.

  Outputs are [rows, out] with groups consecutive along out.
  """
  matrix = as_matrix(weight, gram.axes)
  groups = gram.matrix.shape[0]
  blocks = matrix.reshape(matrix.shape[0], groups, -1)
  energy = np.einsum('dgo,gde,ego->', blocks, gram.matrix, blocks)
  mean = np.square(np.asarray(outputs)).sum() / int(gram.count)
  np.testing.assert_allclose(energy, mean, rtol=1e-10)


class MLP(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(5, param_dtype=float)(x))
    x = nn.LayerNorm(param_dtype=float, force_float32_reductions=False)(x)
    return nn.Dense(3, param_dtype=float)(x)


def test_flax_dense_layers_against_their_inputs():
  model, x = MLP(), normal(0, 7, 4)
  params = model.init(jax.random.key(0), x)
  found = stats.gram(model.apply, params, [x])['params']
  _, seen = model.apply(params, x, capture_intermediates=True)
  hidden = seen['intermediates']['LayerNorm_0']['__call__'][0]
  for name, rows in (('Dense_0', x), ('Dense_1', hidden)):
    gram = found[name]['kernel']
    np.testing.assert_allclose(gram.matrix[0], moment(rows), rtol=1e-12)
    assert gram.axes == (0,)
    assert gram.count == 7
    assert found[name]['bias'] is None
  assert found['LayerNorm_0'] == {'scale': None, 'bias': None}
  kernel = params['params']['Dense_1']['kernel']
  assert_explains(found['Dense_1']['kernel'], kernel, hidden @ kernel)


def test_weights_stored_out_by_in_and_vmapped_over_the_batch():
  params = [{'weight': normal(1, 5, 4)}, {'weight': normal(2, 3, 5)}]

  def one(params, x):
    return params[1]['weight'] @ jnp.tanh(params[0]['weight'] @ x)

  apply_fn = lambda p, x: jax.vmap(functools.partial(one, p))(x)
  x = normal(0, 6, 4)
  found = stats.gram(apply_fn, params, [x])
  hidden = np.tanh(x @ params[0]['weight'].T)
  for layer, rows, weight in zip(found, (x, hidden), params):
    assert layer['weight'].axes == (1,)
    np.testing.assert_allclose(
      layer['weight'].matrix[0], moment(rows), rtol=1e-12
    )
    assert_explains(
      layer['weight'], weight['weight'], rows @ weight['weight'].T
    )


def test_unequal_batches_equal_all_at_once_and_rows_count_tokens():
  params, x = {'w': normal(1, 4, 3)}, normal(0, 7, 5, 4)
  apply_fn = lambda p, x: x @ p['w']
  whole = stats.gram(apply_fn, params, [x])['w']
  batches = ((x[i : i + 3], 'ignored') for i in range(0, 7, 3))
  parts = stats.gram(apply_fn, params, batches)['w']
  np.testing.assert_allclose(parts.matrix, whole.matrix, rtol=1e-12)
  np.testing.assert_allclose(
    whole.matrix[0], moment(x.reshape(-1, 4)), rtol=1e-12
  )
  assert parts.count == whole.count == 35


def patch_rows(x, kernel, out, stride, low, dilation):
  """[group-less rows, h * w * in] by explicit loops."""
  padded = np.pad(x, ((0, 0), (low[0], 9), (low[1], 9), (0, 0)))
  rows = []
  for image in padded:
    for i in range(out[0]):
      for j in range(out[1]):
        window = [
          image[
            i * stride[0] + a * dilation[0], j * stride[1] + b * dilation[1]
          ]
          for a in range(kernel[0])
          for b in range(kernel[1])
        ]
        rows.append(np.stack(window))
  return np.stack(rows)  # [rows, h * w, in]


@pytest.mark.parametrize(
  ('kernel', 'stride', 'padding', 'groups', 'dilation'),
  [
    ((3, 3), (1, 1), 'SAME', 1, (1, 1)),
    ((3, 2), (2, 1), 'VALID', 1, (1, 1)),
    ((3, 3), (2, 2), 'SAME', 2, (1, 1)),
    ((2, 3), (1, 2), ((1, 2), (0, 1)), 4, (1, 1)),
    ((2, 2), (1, 1), 'VALID', 1, (2, 3)),
    ((1, 1), (1, 1), 'SAME', 1, (1, 1)),
  ],
)
def test_convolutions_against_a_loop_over_patches(
  kernel, stride, padding, groups, dilation
):
  x = normal(0, 2, 6, 7, 4)
  weight = normal(1, *kernel, 4 // groups, 8)

  def apply_fn(params, x):
    return jax.lax.conv_general_dilated(
      x,
      params['kernel'],
      stride,
      padding,
      rhs_dilation=dilation,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )

  outputs = apply_fn({'kernel': weight}, x)
  gram = stats.gram(apply_fn, {'kernel': weight}, [x])['kernel']
  low = [
    (max((o - 1) * s + k - n, 0) // 2 if padding == 'SAME' else 0)
    for o, s, k, n in zip(outputs.shape[1:3], stride, kernel, x.shape[1:3])
  ]
  if isinstance(padding, tuple):
    low = [before for before, _ in padding]
  rows = patch_rows(x, kernel, outputs.shape[1:3], stride, low, dilation)
  rows = rows.reshape(*rows.shape[:2], groups, -1)
  expected = [
    moment(rows[:, :, g].reshape(len(rows), -1)) for g in range(groups)
  ]
  assert gram.axes == (0, 1, 2)
  np.testing.assert_allclose(gram.matrix, np.stack(expected), rtol=1e-12)
  assert gram.count == len(rows)
  assert_explains(gram, weight, outputs)


def test_depthwise_convolution_has_a_group_for_each_channel():
  model = nn.Conv(6, (3,), feature_group_count=3, param_dtype=float)
  x = normal(0, 2, 5, 3)
  params = model.init(jax.random.key(0), x)['params']
  apply_fn = lambda p, x: model.apply({'params': p}, x)
  gram = stats.gram(apply_fn, params, [x])['kernel']
  assert gram.matrix.shape == (3, 3, 3)
  assert_explains(gram, params['kernel'], apply_fn(params, x))


def test_convolution_with_channels_first_and_a_vmapped_batch():
  weight, x = normal(1, 5, 2, 3, 3), normal(0, 4, 2, 6, 6)

  def one(weight, x):
    return jax.lax.conv_general_dilated(x[None], weight, (1, 1), 'SAME')[0]

  apply_fn = lambda p, x: jax.vmap(one, (None, 0))(p, x)
  gram = stats.gram(apply_fn, weight, [x])
  assert gram.axes == (1, 2, 3)
  assert_explains(gram, weight, apply_fn(weight, x))


def test_transposed_convolution():
  model = nn.ConvTranspose(3, (3, 3), strides=(2, 2), param_dtype=float)
  x = normal(0, 2, 4, 4, 2)
  params = model.init(jax.random.key(0), x)['params']
  apply_fn = lambda p, x: model.apply({'params': p}, x)
  gram = stats.gram(apply_fn, params, [x])['kernel']
  assert_explains(gram, params['kernel'], apply_fn(params, x))


@pytest.mark.parametrize('side', [1, 2, 3])
def test_convolution_written_as_patches_times_a_reshaped_kernel(side):
  x, kernel = normal(0, 2, 5, 5, 3), normal(1, side, side, 3, 4)
  size = 5 - side + 1

  def by_hand(params, x):
    cut = [
      x[:, i : i + size, j : j + size] for i in range(side) for j in range(side)
    ]
    patches = jnp.concatenate(cut, -1)
    return patches @ params['kernel'].reshape(-1, 4)

  def by_lax(params, x):
    return jax.lax.conv_general_dilated(
      x,
      params['kernel'],
      (1, 1),
      'VALID',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  ours, theirs = (
    stats.gram(f, {'kernel': kernel}, [x])['kernel'] for f in (by_hand, by_lax)
  )
  assert ours.axes == theirs.axes == (0, 1, 2)
  np.testing.assert_allclose(ours.matrix, theirs.matrix, rtol=1e-12)
  assert ours.count == theirs.count == 2 * size**2


def test_attention_with_heads_split_in_the_weights():
  model = nn.MultiHeadDotProductAttention(2, param_dtype=float)
  x = normal(0, 3, 5, 4)
  params = model.init(jax.random.key(0), x)['params']
  apply_fn = lambda p, x: model.apply({'params': p}, x)
  found = stats.gram(apply_fn, params, [x])
  for name in ('query', 'key', 'value'):
    gram = found[name]['kernel']
    assert gram.axes == (0,)
    np.testing.assert_allclose(
      gram.matrix[0], moment(x.reshape(-1, 4)), rtol=1e-12
    )
  gram, out = found['out']['kernel'], params['out']['kernel']
  assert gram.axes == (0, 1)
  bias = params['out']['bias'][None, None]
  assert_explains(gram, out, apply_fn(params, x) - bias)


def test_heads_split_by_a_reshape_of_the_weight():
  params, x = {'w': normal(1, 4, 6)}, normal(0, 3, 5, 4)
  split = lambda p, x: jnp.einsum('btd,dhk->bhtk', x, p['w'].reshape(4, 2, 3))
  gram = stats.gram(split, params, [x])['w']
  np.testing.assert_allclose(gram.matrix[0], moment(x.reshape(-1, 4)))
  merged = lambda p, x: jnp.einsum('bthk,hkd->btd', x, p['w'].reshape(2, 2, 6))
  heads = x.reshape(3, 5, 2, 2)
  gram = stats.gram(merged, params, [heads])['w']
  assert gram.axes == (0,)
  np.testing.assert_allclose(gram.matrix[0], moment(x.reshape(-1, 4)))


def test_input_axes_contracted_in_another_order_come_in_the_stored_one():
  params, x = {'w': normal(1, 2, 5, 3)}, normal(0, 6, 3, 2)
  apply_fn = lambda p, x: jnp.einsum('bki,iok->bo', x, p['w'])
  gram = stats.gram(apply_fn, params, [x])['w']
  assert gram.axes == (0, 2)
  rows = np.swapaxes(np.asarray(x), 1, 2).reshape(6, -1)
  np.testing.assert_allclose(gram.matrix[0], moment(rows))
  assert_explains(gram, params['w'], apply_fn(params, x))


def test_a_weight_used_twice_adds_its_rows():
  params, x = {'w': normal(1, 4, 4)}, normal(0, 6, 4)
  apply_fn = lambda p, x: jnp.tanh(x @ p['w']) @ p['w']
  gram = stats.gram(apply_fn, params, [x])['w']
  rows = np.concatenate([x, np.tanh(x @ params['w'])])
  np.testing.assert_allclose(gram.matrix[0], moment(rows), rtol=1e-12)
  assert gram.count == 12


def test_tied_embedding_is_linear_over_its_features():
  table, tokens = normal(1, 9, 4), jnp.asarray([[0, 3, 3], [8, 1, 2]])

  def apply_fn(params, tokens):
    return jnp.tanh(params['table'][tokens]) @ params['table'].T

  gram = stats.gram(apply_fn, {'table': table}, [tokens])['table']
  rows = np.tanh(table[tokens]).reshape(-1, 4)
  assert gram.axes == (1,)
  np.testing.assert_allclose(gram.matrix[0], moment(rows), rtol=1e-12)
  assert_explains(gram, table, rows @ table.T)


@jax.custom_jvp
def linear_jvp(w, x):
  return x @ w


linear_jvp.defjvps(None, lambda dx, out, w, x: dx @ w)


@jax.custom_vjp
def linear_vjp(w, x):
  return x @ w


linear_vjp.defvjp(lambda w, x: (x @ w, (w, x)), lambda r, g: (g, g))


@pytest.mark.parametrize(
  'linear',
  [
    jax.jit(lambda w, x: x @ w),
    jax.checkpoint(lambda w, x: jnp.tanh(x @ w)),
    linear_jvp,
    linear_vjp,
    lambda w, x: x @ jax.lax.optimization_barrier((w, x))[0],
    lambda w, x: x @ jax.lax.stop_gradient(w).astype('float32').astype(float),
    lambda w, x: x[:, None] @ w[None, None, :, :][0, 0],
    lambda w, x: jax.lax.dot(w.T, x.T),
    lambda w, x: jax.vmap(jax.vmap(jnp.dot, (None, 1)), (0, None))(x, w),
  ],
)
def test_calls_casts_and_transposes_are_followed(linear):
  w, x = normal(1, 4, 3), normal(0, 6, 4)
  gram = stats.gram(lambda p, x: linear(p['w'], x), {'w': w}, [x])['w']
  assert gram.axes == (0,)
  assert gram.count == 6
  np.testing.assert_allclose(gram.matrix[0], moment(x), rtol=1e-12)


def test_scan_over_a_stack_of_layers_gives_a_group_for_each():
  params = {'w': normal(1, 3, 4, 4), 'b': normal(2, 3, 4)}
  x = normal(0, 6, 4)

  def layer(h, p):
    return jnp.tanh(h @ p['w'] + p['b'][None]), None

  looped = lambda p, x: jax.lax.scan(layer, x, p)[0]
  found = stats.gram(looped, params, [x[:4], x[4:]])
  rows = [x]
  for i in range(2):
    rows.append(layer(rows[-1], {k: v[i] for k, v in params.items()})[0])
  gram = found['w']
  np.testing.assert_allclose(gram.matrix, [moment(r) for r in rows], rtol=1e-12)
  assert (gram.axes, gram.count, found['b']) == ((1,), 6, None)
  outputs = np.stack([r @ w for r, w in zip(rows, params['w'])], 1)
  assert_explains(gram, params['w'], outputs)


def test_scan_of_scans_of_layers():
  params, x = {'w': normal(1, 2, 3, 4, 4)}, normal(0, 6, 4)
  layer = lambda h, w: (jnp.tanh(h @ w), None)
  stage = lambda h, w: (jax.lax.scan(layer, h, w)[0], None)
  nested = lambda p, x: jax.lax.scan(stage, x, p['w'])[0]
  flat = lambda p, x: jax.lax.scan(layer, x, p['w'].reshape(6, 4, 4))[0]
  ours, theirs = (stats.gram(f, params, [x])['w'] for f in (nested, flat))
  assert ours.axes == theirs.axes == (2,)
  np.testing.assert_allclose(ours.matrix, theirs.matrix, rtol=1e-12)
  assert ours.matrix.shape == (6, 4, 4)


def test_recurrent_weights_sum_over_time():
  params, x = {'w': normal(1, 4, 4), 'u': normal(2, 3, 4)}, normal(0, 5, 7, 3)

  def apply_fn(params, x):
    def step(h, x):
      return jnp.tanh(h @ params['w'] + x @ params['u']), None

    return jax.lax.scan(step, jnp.zeros((5, 4)), jnp.swapaxes(x, 0, 1))[0]

  found = stats.gram(apply_fn, params, [x])
  np.testing.assert_allclose(
    found['u'].matrix[0], moment(x.reshape(-1, 3)), rtol=1e-12
  )
  h, rows = np.zeros((5, 4)), []
  for t in range(7):
    rows.append(h)
    h = np.tanh(h @ params['w'] + np.asarray(x)[:, t] @ params['u'])
  np.testing.assert_allclose(
    found['w'].matrix[0], moment(np.concatenate(rows)), rtol=1e-12
  )
  assert found['w'].count == found['u'].count == 35


def test_experts_have_a_group_each():
  params, x = {'w': normal(1, 3, 4, 2)}, normal(0, 5, 3, 4)
  apply_fn = lambda p, x: jnp.einsum('bei,eio->beo', x, p['w'])
  gram = stats.gram(apply_fn, params, [x])['w']
  expected = [moment(x[:, e]) for e in range(3)]
  np.testing.assert_allclose(gram.matrix, expected, rtol=1e-12)
  assert gram.axes == (1,)
  assert_explains(gram, params['w'], apply_fn(params, x))


def while_loop(p, x):
  body = lambda s: (s[0] + 1, jnp.tanh(s[1] @ p['w']))
  return jax.lax.while_loop(lambda s: s[0] < 2, body, (0, x))[1]


NOT_LINEAR = {
  'nothing': lambda p, x: x,
  'mul': lambda p, x: x[:, None] * p['w'][None],
  'exp': lambda p, x: x @ jnp.exp(p['w']),
  'gather': lambda p, x: p['w'][jnp.argmax(x, 1)],
  'while': while_loop,
  'cond': lambda p, x: jax.lax.cond(x[0, 0] > 0, lambda: x @ p['w'], lambda: x),
  'slice': lambda p, x: x @ p['w'][:, :2],
  'dot_general': lambda p, x: x @ (p['w'] @ p['v']),
  'carry': lambda p, x: jax.lax.fori_loop(
    0, 2, lambda i, s: (jnp.tanh(s[0] @ s[1]), s[1] / 2), (x, p['w'])
  )[0],
  'part of one axis': lambda p, x: jnp.einsum(
    'bhi,hio->bho', x.reshape(-1, 2, 2), p['w'].reshape(2, 2, 4)
  ),
  'contracts none': lambda p, x: jnp.einsum('bi,jk->bijk', x, p['w']),
}


@pytest.mark.parametrize('reason', NOT_LINEAR)
def test_other_uses_are_none_and_the_reason_is_reported(reason):
  params, x = {'w': normal(1, 4, 4), 'v': normal(2, 4, 4)}, normal(0, 3, 4)
  assert stats.gram(NOT_LINEAR[reason], params, [x])['w'] is None
  line = stats.linear_maps(NOT_LINEAR[reason], params, x)['w']
  assert line.startswith('no linear map')
  assert reason in line


def test_a_batch_axis_behind_an_output_axis_makes_no_blocks():
  params, x = {'w': normal(1, 4, 2, 3)}, normal(0, 5, 3, 4)
  apply_fn = lambda p, x: jnp.einsum('bei,ioe->beo', x, p['w'])
  assert stats.gram(apply_fn, params, [x])['w'] is None
  line = stats.linear_maps(apply_fn, params, x)['w']
  assert 'a batched product over an axis that is not leading' in line


def test_a_weight_over_different_axes_has_no_one_gram():
  params, x = {'w': normal(1, 4, 3)}, normal(0, 6, 4)
  apply_fn = lambda p, x: (x @ p['w']) @ p['w'].T
  assert stats.gram(apply_fn, params, [x])['w'] is None
  assert stats.linear_maps(apply_fn, params, x)['w'] == (
    'no one Gram: linear in axes (0,), groups 1, rows 6 and '
    'linear in axes (1,), groups 1, rows 6'
  )


def test_integer_and_empty_leaves_are_none():
  params = {'n': jnp.ones((4, 4), int), 'e': jnp.zeros((4, 0))}
  apply_fn = lambda p, x: (x @ p['e'], x @ p['n'].astype(float))
  assert stats.gram(apply_fn, params, [normal(0, 3, 4)]) == {
    'n': None,
    'e': None,
  }


def test_bfloat16_inputs_are_summed_in_float32():
  params = {'w': jnp.ones((1, 2), 'bfloat16')}
  x = jnp.full((1000, 1), 1.0, 'bfloat16')
  gram = stats.gram(lambda p, x: x @ p['w'], params, [x])['w']
  assert gram.matrix.dtype == 'float32'
  assert gram.matrix.item() == 1.0
  assert gram.count == 1000


def test_batches_of_one_size_compile_once_for_every_model():
  apply_fn, shapes = traced.linear()
  for seed in range(3):
    batches = [normal(i, 4, 3) for i in range(3)] + [normal(9, 2, 3)]
    stats.gram(apply_fn, {'w': normal(seed, 3, 2)}, batches)
  assert shapes == [(4, 3), (2, 3)]


def test_vmap_over_models_and_jit():
  params, x = {'w': normal(1, 2, 4, 4)}, normal(0, 6, 4)
  apply_fn = lambda p, x: jnp.tanh(x @ p['w']) @ p['w']
  find = lambda p: stats.gram(apply_fn, p, [x[:2], x[2:]])
  together = jax.jit(jax.vmap(find))(params)
  separate = tree.stack([find({'w': w}) for w in params['w']])
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-12),
    together,
    separate,
  )
  assert together['w'].matrix.shape == (2, 1, 4, 4)
  assert isinstance(together['w'], types.Gram)


def test_inputs_may_be_a_tree_and_weights_on_demand():
  w = np.asarray(normal(1, 4, 3))
  params = {'w': tree.Stored(lambda: w, w.shape, w.dtype)}
  inputs = {'x': normal(0, 6, 4), 'scale': jnp.ones((6, 1))}
  apply_fn = lambda p, b: (b['x'] * b['scale']) @ p['w']
  gram = stats.gram(apply_fn, params, [inputs])['w']
  np.testing.assert_allclose(gram.matrix[0], moment(inputs['x']))


@pytest.mark.parametrize(
  ('batches', 'message'),
  [
    ([], 'gram: no batches given'),
    (np.zeros((3, 2)), 'gram: batches is one array of shape (3, 2)'),
    ([np.zeros((0, 2))], 'gram: batch 0 holds no examples'),
    ([np.zeros((1, 2)), np.zeros(())], 'gram: batch 1 holds no examples'),
  ],
)
def test_bad_batches_are_named(batches, message):
  with pytest.raises(ValueError) as error:
    stats.gram(lambda p, x: x @ p, jnp.ones((2, 2)), batches)
  assert message in str(error.value)
