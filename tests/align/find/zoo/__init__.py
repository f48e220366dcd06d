"""Small architectures whose permutation groups are known from theory.

The sizes within a model differ, so that equal sizes cannot hide an error;
``equal_sizes`` is the exception. ``build(name)`` returns a model.
"""

import functools
import importlib.util

import pytest

from tests.align.find.zoo import (
  attention,
  base,
  convolution,
  dense,
  fused,
  library,
  recurrent,
)

_MAKERS = (
  dense.mlp,
  dense.layer_norm,
  dense.shared_twice,
  dense.tied_autoencoder,
  dense.mixer,
  dense.soft_moe,
  dense.top_k_moe,
  dense.remat,
  dense.while_cond,
  convolution.resnet_batch_norm,
  convolution.group_norm,
  convolution.channels_first,
  convolution.dense_net,
  convolution.unet,
  attention.transformer,
  attention.scan_transformer,
  attention.llama,
  attention.llama_library,
  attention.llama_without_positions,
  attention.llama_key_norm,
  attention.llama_rotary_key_norm,
  attention.fused_split,
  attention.fused_reshape,
  attention.fused_unstack,
  attention.relative_bias,
  attention.perceiver,
  attention.equal_sizes,
  fused.unequal_parts,
  fused.neox,
  fused.bloom,
  fused.falcon,
  fused.latent_attention,
  fused.partial_rotary,
  fused.nested_parts,
  recurrent.lstm,
  recurrent.gru,
  recurrent.lstm_concatenated,
  recurrent.gru_concatenated,
  recurrent.state_space,
  library.wsl_mlp,
  library.wsl_resnet,
  library.wsl_resnet_groups,
  library.wsl_vit,
  library.wsl_language,
  library.nnx_attention,
  library.equinox_attention,
)

ZOO = {maker.__name__: maker for maker in _MAKERS}


@functools.cache
def build(name: str) -> base.Model:
  """Returns a model of the zoo; skips the test if its library is missing."""
  if name.startswith('equinox') and not importlib.util.find_spec('equinox'):
    pytest.skip('equinox is not installed (extra: test)')
  return ZOO[name]()
