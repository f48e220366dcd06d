"""Models of this library, of Flax NNX and of Equinox."""

from flax import nnx
import jax

from tests.align.find.zoo import base
from wsl import models

f = base.factorial


def wsl_mlp():
  x = base.normal(3, 2, 2)
  model = models.MLP(widths=(7, 6), outputs=3)
  return base.Model(*base.linen(model, x), (x,), f(7) * f(6))


def wsl_resnet():
  x = base.normal(1, 8, 8, 3)
  model = models.ResNet(
    outputs=4, widths=(6, 9), depth=1, stem=3, dense=(7, 7, 5)
  )
  # In each stage the stream and the inner width; dense blocks of 7 (two, one
  # stream) and 5.
  order = f(6) ** 2 * f(9) ** 2 * f(7) * f(5)
  return base.Model(*base.linen(model, x), (x,), order)


def wsl_resnet_groups():
  x = base.normal(1, 8, 8, 3)
  model = models.ResNet(
    outputs=4, widths=(6, 8), depth=1, stem=3, dense=(5,), groups=2,
    pool='mean',
  )  # fmt: skip
  # Every width is 2 groups of 3 or 4 channels, permuted within each group.
  order = (f(2) * f(3) ** 2) ** 2 * (f(2) * f(4) ** 2) ** 2 * f(5)
  return base.Model(*base.linen(model, x), (x,), order)


def wsl_vit():
  x = base.normal(2, 4, 6, 3)
  model = models.ViT(outputs=5, patch=2, width=12, depth=2, heads=3)
  # Stream 12; in both blocks 3 heads of 4 and 4 units; hidden 24. Flattening
  # six tokens keeps the stream's label.
  order = f(12) * (f(3) * f(4) ** 3 * f(4) ** 3 * f(24)) ** 2
  blind = tuple(f'params/block_{i}/attention/key/bias' for i in range(2))
  return base.Model(*base.linen(model, x), (x,), order, blind)


def wsl_language():
  x = base.tokens(2, 5, 9)
  model = models.LanguageModel(
    vocabulary=9, width=24, depth=2, heads=6, groups=2, hidden=7
  )
  # Stream; in each layer 2 key heads, their 3 queries, 4 units of value.
  order = f(24) * (f(2) * f(3) ** 2 * f(4) ** 2 * f(7)) ** 2
  return base.Model(*base.linen(model, x), (x,), order)


class NNX(nnx.Module):
  def __init__(self, rngs):
    self.conv = nnx.Conv(2, 6, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
    self.attention = nnx.MultiHeadAttention(3, 6, 12, decode=False, rngs=rngs)
    self.out = nnx.Linear(6, 5, rngs=rngs)

  def __call__(self, x):
    h = nnx.relu(self.norm(self.conv(x)))
    h = h.reshape(h.shape[0], -1, h.shape[-1])
    return self.out((h + self.attention(h)).mean(1))


def nnx_attention():
  learned = (nnx.Param, nnx.BatchStat)
  net = nnx.eval_shape(lambda: NNX(nnx.Rngs(0)))
  graph, state, other = nnx.split(net, learned, ...)
  apply = base.lenient(lambda p, x: nnx.merge(graph, p, other)(x))
  # Channels are the stream; 3 heads of 4 and 4 units.
  order = f(6) * f(3) * f(4) ** 3 * f(4) ** 3
  x = base.normal(2, 4, 4, 2)
  blind = ('attention/key/bias/value',)
  return base.Model(apply, base.draw(state), (x,), order, blind)


def equinox_attention():
  import equinox as eqx

  class Net(eqx.Module):
    embed: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP

    def __init__(self, key):
      a, b, c = jax.random.split(key, 3)
      self.embed = eqx.nn.Linear(3, 8, key=a)
      self.norm = eqx.nn.LayerNorm(8)
      self.attention = eqx.nn.MultiheadAttention(
        2, 8, qk_size=3, vo_size=5, key=b
      )
      self.mlp = eqx.nn.MLP(8, 4, 7, 2, key=c)

    def __call__(self, x):
      h = jax.vmap(self.embed)(x)
      y = jax.vmap(self.norm)(h)
      h = h + self.attention(y, y, y)
      return jax.vmap(self.mlp)(h)

  shapes = eqx.filter_eval_shape(Net, jax.random.key(0))
  is_array = lambda x: isinstance(x, jax.ShapeDtypeStruct)
  arrays, static = eqx.partition(shapes, is_array)
  apply = lambda p, x: jax.vmap(eqx.combine(p, static))(x)
  # Stream 8; 2 heads with 3 units of query and key, 5 of value and output;
  # two hidden layers of 7. Kernels are [out, in].
  order = f(8) * f(2) * f(3) ** 2 * f(5) ** 2 * f(7) ** 2
  return base.Model(apply, base.draw(arrays), (base.normal(2, 4, 3),), order)
