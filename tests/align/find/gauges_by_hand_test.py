"""The dimension of the gauge group of each architecture, derived by hand.

The models are those of the zoo, so the search is shared with its tests, and six
more. A scale, a sign or a phase counts once for each unit; GL(n) has n^2, O(n)
n (n - 1) / 2.
"""

import math

import jax
import jax.numpy as jnp
import pytest

from tests.align.find import harness
from wsl import align

# Heads * units^2, of queries and keys or of values and outputs.
gl = lambda heads, units: heads * units**2
# (dimension of the continuous group, number of independent signs).
BY_HAND = {
  # ReLU units scale; those of GELU do not.
  'mlp': (7, 0),
  # Gains and shifts of 3 norms into the next map; tanh units 7 and 5.
  'layer_norm': (3 * 6, 3 * 6 + 7 + 5),
  'shared_twice': (0, 6),
  'tied_autoencoder': (0, 6 + 5),
  # The norm before the channel mixer, in 2 blocks; tokens are mixed otherwise.
  'mixer': (2 * 6, 2 * 6),
  # Experts of SiLU have none; the stream is that of tanh.
  'soft_moe': (0, 5),
  'top_k_moe': (0, 5),
  # No norm: GL of the stream. Squares forget the signs of hidden units.
  'remat': (6**2, 7 + 5),
  # ReLU in one branch, tanh in the other; the loop compares its state.
  'while_cond': (5, 4),
  # Each BatchNorm: kernel and mean against the gain. ReLU: 2 streams, 2 inner.
  'resnet_batch_norm': ((6 + 5 + 6 + 7 + 8 + 8) + (6 + 5 + 8 + 7), 40),
  # GroupNorm's gains, the depthwise kernel, the grouped one, the dense one; the
  # sign of each group before the norm.
  'group_norm': (12 + 12 + 6 + 5, 3),
  # The norm over all channels keeps the first; tanh of the squeezed ones.
  'channels_first': (5, 4),
  # Raw features, on which the moments of later norms depend, and each norm's
  # gains into its convolution.
  'dense_net': ((6 + 4 + 5) + 6 + (6 + 4) + (6 + 4 + 5), 6 + 4 + 5),
  'unet': (4 + 6 + 5 + 3 + 7, 0),
  # GPT-2: gains of 2 norms in 2 blocks, not of the last before a tied table.
  'transformer': (4 * 10 + 4 * gl(3, 4), 4 * 10),
  # The same in a scan of 3 blocks, and the last norm.
  'scan_transformer': (3 * 2 * 8 + 8 + 3 * 2 * gl(3, 2), 3 * 2 * 8 + 8),
  # Llama: gains of 5 norms; SwiGLU; values; phases of 2 frequencies for each
  # head of keys. Signs: gains, the stream, SwiGLU.
  'llama': (5 * 10 + 2 * 7 + 2 * gl(2, 4) + 2 * 2 * 2 * 2, 6 * 10 + 2 * 7),
  'llama_library': (
    5 * 10 + 2 * 7 + 2 * gl(2, 4) + 2 * 2 * 2 * 2, 6 * 10 + 2 * 7,
  ),
  # Queries and keys have GL(4) in place of phases.
  'llama_without_positions': (
    5 * 10 + 2 * 7 + 4 * gl(2, 4), 6 * 10 + 2 * 7,
  ),
  # Norms of queries and keys: opposite gains, which the heads share. Signs of
  # both gains, and of the keys of each head; those of queries follow.
  'llama_key_norm': (
    5 * 10 + 2 * 7 + 2 * gl(2, 4) + 2 * 4, 6 * 10 + 2 * 7 + 2 * (4 + 4 + 2 * 4),
  ),
  # Under RoPE the gains of a frequency scale alike, and so do signs of keys.
  'llama_rotary_key_norm': (
    5 * 10 + 2 * 7 + 2 * gl(2, 4) + 2 * 2, 6 * 10 + 2 * 7 + 2 * (4 + 4 + 2 * 2),
  ),
  # The norm's gains into the projection; ReLU; Q-K and V-O.
  'fused_split': (7 + 5 + 2 * gl(3, 4), 7),
  'fused_reshape': (7 + 5 + 2 * gl(3, 4), 7),
  'fused_unstack': (7 + 5 + 2 * gl(3, 4), 7),
  # T5: no norm here; a bias of distances for each head.
  'relative_bias': (7**2 + gl(6, 4) + gl(6, 2), 0),
  # A maximum over latents keeps positive scales of the stream.
  'perceiver': (7 + 8 + gl(2, 4) + gl(2, 6), 0),
  # GPT-NeoX: stream; values; units that are not rotated; 2 frequencies.
  'neox': (6**2 + gl(2, 7) + gl(2, 3) + 2 * 2 * 2, 0),
  # BLOOM: slopes of ALiBi leave the units of each head.
  'bloom': (2 * gl(2, 4), 0),
  'falcon': (2 * gl(2, 4), 0),
  # DeepSeek: latents; values; units without positions; one frequency of the
  # key that all heads share.
  'latent_attention': (6**2 + gl(2, 4) + gl(2, 3) + 2, 0),
  'partial_rotary': (gl(2, 4) + gl(2, 3) + 2 * 2, 0),
  # Cells and outputs of an LSTM, and states of a GRU, are odd.
  'lstm': (0, 5 + 4),
  'gru': (0, 6),
  'lstm_concatenated': (0, 6),
  'gru_concatenated': (0, 6 + 5),
  # States are scaled by the input maps, and back by the output maps.
  'state_space': (5, 5),
  'wsl_mlp': (7 + 6, 0),
  # Gains of LayerNorms into convolutions, through ReLU: stream and inner width
  # of 2 stages, and dense blocks of 7 and 5.
  'wsl_resnet': (2 * 6 + 2 * 9 + 7 + 5, 0),
  # The same with GroupNorm; the sign of each group before each of 6 norms.
  'wsl_resnet_groups': (2 * 6 + 2 * 8 + 5, 6 * 2),
  # ViT: gains of 5 norms; Q-K and V-O of 3 heads in 2 blocks.
  'wsl_vit': (5 * 12 + 4 * gl(3, 4), 5 * 12),
  # Tied: 4 gains; SwiGLU; values; phases. Signs: gains, stream, SwiGLU.
  'wsl_language': (
    4 * 24 + 2 * 7 + 2 * gl(2, 4) + 2 * 2 * 2 * 2, 5 * 24 + 2 * 7,
  ),
  # BatchNorm's gain, and the ReLU stream.
  'nnx_attention': (2 * 6 + 2 * gl(3, 4), 6),
  'equinox_attention': (8 + 2 * 7 + gl(2, 3) + gl(2, 5), 8),
}  # fmt: skip
# What is found of them. A table is indexed by the outer factors of its units:
# scales and signs of a stream are one for all blocks of a scan, and signs of
# keys whose units have one order in all heads are those of a head times those
# of a unit. The last two are counted with the sign that is in both.
FOUND = {
  'scan_transformer': (2 * 8 + 8 + 3 * 2 * gl(3, 2), 2 * 8 + 8),
  'llama_key_norm': (
    5 * 10 + 2 * 7 + 2 * gl(2, 4) + 2 * 4, 6 * 10 + 2 * 7 + 2 * (4 + 4 + 2 + 4),
  ),
  'llama_rotary_key_norm': (
    5 * 10 + 2 * 7 + 2 * gl(2, 4) + 2 * 2, 6 * 10 + 2 * 7 + 2 * (4 + 4 + 2 + 2),
  ),
  # A factor of a whole tower is no gauge of its units.
  'two towers': (7 * 6 // 2 + 5 + 6, 0),
}  # fmt: skip


def shapes(**sizes):
  return {n: jax.ShapeDtypeStruct(s, jnp.float64) for n, s in sizes.items()}


def norm(x, gain, shift):
  x = x - x.mean(-1, keepdims=True)
  x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
  return x * gain[None, None] + shift[None, None]


def attend(p, h):
  q, k, v = (jnp.einsum('bsd,dhe->bshe', h, p[n]) for n in 'qkv')
  weights = jax.nn.softmax(jnp.einsum('bqhd,bkhd->bhqk', q, k))
  return jnp.einsum('bhqk,bkhe,hed->bqd', weights, v, p['o'])


ATTENTION = {n: (8, 2, 3) for n in 'qkv'} | {'o': (2, 3, 8)}
TOKENS = jax.ShapeDtypeStruct((2, 5, 4), jnp.float64)
IMAGE = jax.ShapeDtypeStruct((2, 6, 6, 3), jnp.float64)


def bert(p, x):
  """Normalises after each sum."""
  h = x @ p['in']
  h = norm(h + attend(p, h), p['g'], p['s'])
  h = norm(h + jax.nn.gelu(h @ p['up']) @ p['down'], p['g2'], p['s2'])
  return h @ p['out']


def conv(x, kernel, groups=1):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )  # fmt: skip


def convnext(p, x):
  """A depthwise convolution, a norm, a mixer and a gain of the branch."""
  h = conv(x, p['stem'])
  y = conv(h, p['deep'], 6)
  y = norm(y.reshape(2, 36, 6), p['g'], p['s'])
  y = (jax.nn.gelu(y @ p['up']) @ p['down']) * p['gamma'][None, None]
  h = h.reshape(2, 36, 6) + y
  return norm(h, p['g2'], p['s2']).mean(1) @ p['out']


def squeeze_excite(p, x):
  """A residual block whose channels are gated by their means."""
  h = jax.nn.relu(conv(x, p['stem']))
  y = conv(jax.nn.relu(conv(h, p['one'])), p['two'])
  gate = jax.nn.sigmoid(jax.nn.relu(y.mean((1, 2)) @ p['s']) @ p['e'])
  h = jax.nn.relu(h + y * gate[:, None, None])
  return h.mean((1, 2)) @ p['out']


def two_towers(p, x):
  """The cosine of two maps, as in CLIP."""
  one = lambda n: jax.nn.relu(x @ p[n]) @ p[n + '2']
  unit = lambda y: y / jnp.linalg.norm(y, axis=-1, keepdims=True)
  return jnp.einsum('bsd,btd->bst', unit(one('a')), unit(one('b')))


NORMS = {n: (8,) for n in ('g', 's', 'g2', 's2')}
# Function, sizes, input, dimension and signs.
MORE = {
  # Only the last norm is followed by a map alone.
  'bert': (
    bert,
    ATTENTION | NORMS
    | {'in': (4, 8), 'up': (8, 5), 'down': (5, 8), 'out': (8, 2)},
    TOKENS, 8 + 2 * gl(2, 3), 8,
  ),
  # The norm into the mixer, the mixer against gamma, the last norm.
  'convnext': (
    convnext,
    {n: (6,) for n in ('g', 's', 'g2', 's2', 'gamma')}
    | {'stem': (1, 1, 3, 6), 'deep': (3, 3, 1, 6), 'up': (6, 7), 'down': (7, 6),
       'out': (6, 2)},
    IMAGE, 3 * 6, 3 * 6,
  ),
  # ReLU: the stream, the inner channels, the squeezed ones.
  'squeeze and excite': (
    squeeze_excite,
    {'stem': (3, 3, 3, 6), 'one': (3, 3, 6, 5), 'two': (3, 3, 5, 6),
     's': (6, 4), 'e': (4, 6), 'out': (6, 2)},
    IMAGE, 6 + 5 + 4, 0,
  ),
  # O of the common space; ReLU units of both; a factor of each tower.
  'two towers': (
    two_towers, {'a': (4, 5), 'a2': (5, 7), 'b': (4, 6), 'b2': (6, 7)},
    TOKENS, 7 * 6 // 2 + 5 + 6 + 2, 0,
  ),
}  # fmt: skip


def dimension(symmetry):
  """Returns the dimension of the continuous group, and the number of signs."""
  total = signs = 0
  for action in symmetry.actions:
    *outer, n = symmetry.action_shape(action.name)
    count = math.prod(outer)
    if action.kind == 'sign':
      signs += count * n
    elif action.kind == 'rotation':
      n -= action.ones
      total += math.prod(outer[:-1]) * n * (n - 1) // 2
    elif action.kind == 'phase':
      total += count * (1 if action.unit else 2)
    else:
      total += count * n
  return total, signs


@pytest.mark.parametrize('name', BY_HAND)
def test_architectures_by_hand(name):
  found = dimension(harness.symmetry_of(name))
  assert found == FOUND.get(name, BY_HAND[name])


@pytest.mark.parametrize('name', MORE)
def test_more_architectures_by_hand(name):
  apply, sizes, x, *wanted = MORE[name]
  symmetry = align.find_symmetry(apply, shapes(**sizes), x)
  assert dimension(symmetry) == FOUND.get(name, tuple(wanted))


@pytest.mark.parametrize(
  ('name', 'wanted'),
  [
    # Rotations of the stream in place of the gains, and no sign of it.
    ('llama', (10 * 9 // 2 + 2 * 7 + 2 * gl(2, 4) + 2 * 2 * 2 * 2, 2 * 7)),
    # Those that fix the mean.
    ('wsl_vit', (11 * 10 // 2 + 4 * gl(3, 4), 0)),
  ],
)
def test_absorbed_gains_by_hand(name, wanted):
  model = harness.build(name)
  symmetry = align.find_symmetry(
    model.apply, model.params, *model.inputs, ones='scale$'
  )
  assert dimension(symmetry) == wanted
