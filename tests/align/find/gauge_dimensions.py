"""The dimension of the gauge group of each architecture, derived by hand.

A scale, a sign or a phase counts once for each unit; GL(n) has n^2, O(n) n (n -
1) / 2.
"""

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
