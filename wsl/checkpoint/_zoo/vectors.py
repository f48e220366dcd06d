"""Models of a zoo as vectors, and the map from a vector to layers."""

from collections.abc import Mapping
import json
import math
import os
import pathlib
from typing import Any

from wsl import types

_FIELDS = ('layer', 'idx_start', 'kernel_no', 'kernel_size', 'channels_in')


def split_vectors(
  vectors: types.Array,
  index: str | os.PathLike[str] | Mapping[str, Any],
  *,
  bias: bool = True,
) -> types.Params:
  """Splits flattened models of a zoo into the weights of their layers.

  The preprocessed zoos hold each model as a vector, and ``index_dict.json``
  says where each layer is: from ``idx_start`` on, ``kernel_no * channels_in *
  kernel_size`` weights and ``kernel_no`` biases. Read the vectors of a file
  ``dataset.pt`` by ``load(file, item='trainset/weights_in')``, hyperparameters
  and metrics of the models by ``item='trainset/properties'``.

  Args:
    vectors: ``[..., D]``, in memory: one model or many.
    index: ``index_dict.json``, or its content.
    bias: whether the vectors have biases.

  Returns:
    A flat dict under the names of PyTorch, ``module_list.0.weight``: kernels
    ``[..., out, in, h, w]`` of square convolutions, ``[..., out, in]`` of
    layers with a kernel of one entry, and biases ``[..., out]``. Leaves are
    views or slices of the vectors.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the index is damaged, or names entries beyond D.

  Example:
    >>> import numpy as np
    >>> index = {'layer': [[0, 'conv2d'], [2, 'fc']], 'idx_start': [0, 9],
    ...          'kernel_no': [1, 2], 'kernel_size': [4, 1],
    ...          'channels_in': [2, 1]}
    >>> found = split_vectors(np.arange(13.0), index)
    >>> {name: x.shape for name, x in found.items() if 'weight' in name}
    {'module_list.0.weight': (1, 2, 2, 2), 'module_list.2.weight': (2, 1)}
    >>> found['module_list.2.bias'].tolist()
    [11.0, 12.0]

  Reference:
    Schürholt et al., "Model Zoos: A Dataset of Diverse Populations of Neural
    Network Models", 2022, arXiv:2209.14764.
  """
  found = {}
  length = vectors.shape[-1]
  for label, start, out, kernel, channels in _rows(index):
    stop = start + out * channels * kernel
    end = stop + out * bias
    if end > length:
      raise ValueError(
        f'split_vectors: layer {label} ends at {end}, but the vectors have '
        f'{length} entries: give the index of this zoo, or bias=False'
      )
    side = math.isqrt(kernel)
    shape = (side, side) if side * side == kernel else (kernel,)
    shape = (out, channels, *shape) if kernel > 1 else (out, channels)
    lead = vectors.shape[:-1]
    name = f'module_list.{label}'
    found[f'{name}.weight'] = vectors[..., start:stop].reshape(*lead, *shape)
    if bias:
      found[f'{name}.bias'] = vectors[..., stop:end]
  return found


def _rows(
  index: str | os.PathLike[str] | Mapping[str, Any],
) -> list[tuple[Any, int, int, int, int]]:
  """Returns label, start, outputs, kernel and inputs of each layer."""
  place = 'index'
  if not isinstance(index, Mapping):
    place = str(index)
    try:
      index = json.loads(pathlib.Path(index).read_text())
    except (ValueError, RecursionError):
      index = {}
  fields = index if isinstance(index, Mapping) else {}
  columns = [fields.get(x) for x in _FIELDS]
  lists = [x for x in columns if isinstance(x, (list, tuple))]
  if len(lists) < len(_FIELDS) or len({len(x) for x in lists}) != 1:
    raise ValueError(
      f'split_vectors: {place} needs equally long lists {", ".join(_FIELDS)}'
    )
  rows = []
  for label, *numbers in zip(*lists):
    label = label[0] if isinstance(label, (list, tuple)) and label else label
    if not all(type(n) is int and n >= 0 for n in numbers):
      raise ValueError(
        f'split_vectors: {place} has {numbers} at layer {label}, expected '
        'integers >= 0'
      )
    rows.append((label, *numbers))
  return rows
