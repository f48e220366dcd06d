"""Pretrained residual networks of CIFAR-10, by their names in PyTorch."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.models import _cifar_resnet, _torch_names

STAGES = 3


def cifar_resnet_from_torch(state: Mapping[str, types.ArrayLike]) -> types.Tree:
  """Reads a pretrained ``CifarResNet`` from a PyTorch state dictionary.

  Entries and leaves must match one to one. Convolutions are transposed from
  ``[out, in, h, w]`` to ``[h, w, in, out]``, the linear map from ``[out, in]``
  to ``[in, out]``; running moments go to the collection ``batch_stats``.

  Args:
    state: arrays by name: ``conv1.weight``, ``bn1.running_mean``,
      ``layer1.0.conv1.weight``, ..., ``linear.bias``.

  Returns:
    Variables ``{'params', 'batch_stats'}`` of ``CifarResNet(depth=6 n + 2)``,
    n being the blocks of a stage.

  Raises:
    ValueError: naming an entry that is missing, unknown, or of another shape.

  Example:
    >>> from wsl import models
    >>> model = models.CifarResNet(depth=8, widths=(2, 2, 2))
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    >>> state = cifar_resnet_to_torch(variables)
    >>> state['layer3.0.conv2.weight'].shape
    (2, 2, 3, 3)
    >>> back = cifar_resnet_from_torch(state)
    >>> back['params']['stem']['conv']['kernel'].shape
    (3, 3, 3, 2)

  Reference:
    The names are those of github.com/akamaster/pytorch_resnet_cifar10.
  """
  blocks = [f'layer1.{i}.conv1.weight' in state for i in range(len(state))]
  count = max(sum(blocks), 1)
  opening = ('conv1', 'layer2.0.conv1', 'layer3.0.conv1', 'linear')
  for name in (f'{module}.weight' for module in opening):
    if name not in state:
      hint = tree.nearest(name, list(state))
      raise ValueError(f"the state has no '{name}'{hint}: is it whole?")
  *widths, outputs = (np.shape(state[f'{name}.weight'])[0] for name in opening)
  first, second, third = widths
  model = _cifar_resnet.CifarResNet(
    6 * count + 2, outputs, (first, second, third)
  )
  channels = np.shape(state['conv1.weight'])[1]
  image = jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float32)
  like = jax.eval_shape(model.init, jax.random.key(0), image)
  return _torch_names.from_torch(state, like=like, modules=_modules(count))


def cifar_resnet_to_torch(variables: types.Tree) -> dict[str, np.ndarray]:
  """Writes a ``CifarResNet`` as a PyTorch state dictionary, bit for bit.

  Args:
    variables: ``{'params', 'batch_stats'}``.

  Returns:
    Arrays by PyTorch's names, for ``torch.from_numpy`` and ``load_state_dict``;
    the counters ``num_batches_tracked`` are not included.

  Raises:
    ValueError: naming a leaf that no ``CifarResNet`` has.
  """
  blocks = [name for name in variables['params'] if name.startswith('block_')]
  modules = _modules(len(blocks) // STAGES)
  return _torch_names.to_torch(variables, modules=modules)


def _modules(count: int) -> dict[str, str]:
  """Returns PyTorch's module for each of ours, ``count`` blocks in a stage."""
  found = {'stem/conv': 'conv1', 'stem/norm': 'bn1', 'output': 'linear'}
  for i in range(STAGES * count):
    block = f'layer{i // count + 1}.{i % count}'
    for k in (0, 1):
      found[f'block_{i}/conv_{k}'] = f'{block}.conv{k + 1}'
      found[f'block_{i}/norm_{k}'] = f'{block}.bn{k + 1}'
  return found
