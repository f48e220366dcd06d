"""Loading LoRA folders as task vectors."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

import numpy as np

from wsl import tree, types
from wsl.checkpoint._lora import config as config_lib
from wsl.checkpoint._lora import factored, kernels, modules, peft
from wsl.checkpoint._read import door, messages

_ENDS = ('weight', 'bias')
_FILES = ('adapter_model.safetensors', 'adapter_model.bin')


def load_lora(
  base: types.Params,
  path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
  *,
  form: str = 'dense',
  check_finite: bool = True,
) -> types.Delta | types.Deltas:
  r"""Loads LoRAs of PEFT as exact task vectors, dense or in factors.

  .. math:: \tau = s B A, \qquad s = \alpha / r \text{ or } \alpha / \sqrt r

  Ranks and alphas by module, biases, weights that are saved whole, new rows of
  embeddings (``trainable_token_indices``) and DoRA are exact too:
  ``deltas.apply`` with the result is the model that PEFT merges, computed in
  float32 and rounded once. Averages of the factors are not: they have products
  of one model's A with another's B.

  Args:
    base: the model under the names of PyTorch, dotted or nested, from which the
      LoRA was trained.
    path: the folder with ``adapter_config.json`` and the factors; or a list of
      T folders, which gives a stack.
    form: ``'dense'``, or ``'factors'``: leaves are ``adapters.Factors``, those
      of a list stacked as by ``adapters.stack``, for ``merge.knots``,
      ``merge.cat`` and ``merge.rmm``. Modules of DoRA, biases and weights that
      are saved whole are dense.
    check_finite: whether reading a factor with an infinity or a NaN is an
      error.

  Returns:
    Task vectors of the base's structure in float32 or wider, leaves ``[...]``
    or, of a list, ``[T, ...]``. They are on demand. A leaf that no LoRA changes
    is ``None``; in a stack, a model that does not change it has zeros.

  Raises:
    FileNotFoundError: if there is no configuration or no weights.
    ValueError: if ``form`` is unknown, a file is damaged, an option is not
      supported, or the base has no such leaf or another shape, naming it; or,
      when it is read, if a factor does not have its recorded hash
      (``save_lora(checksums=True)``).

  Example:
    >>> import json, pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import checkpoint, deltas, tree
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> options = {'peft_type': 'LORA', 'r': 1, 'lora_alpha': 2}
    >>> _ = (folder / 'adapter_config.json').write_text(json.dumps(options))
    >>> name = 'base_model.model.q.lora_{}.weight'.format
    >>> factors = {
    ...   name('A'): np.ones((1, 3), np.float32),
    ...   name('B'): np.full((2, 1), 0.5, np.float32),
    ... }
    >>> checkpoint.save(folder / 'adapter_model.safetensors', factors)
    >>> base = {'q': {'weight': np.zeros((2, 3), np.float32)}}
    >>> tree.read(checkpoint.load_lora(base, folder))['q']['weight'].tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

  Reference:
    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021,
    arXiv:2106.09685; Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation",
    2024, arXiv:2402.09353; Kalajdzievski, "A Rank Stabilization Scaling Factor
    for Fine-Tuning with LoRA", 2023, arXiv:2312.03732.
  """
  if form not in ('dense', 'factors'):
    raise ValueError(f"load_lora(form={form!r}): expected 'dense' or 'factors'")
  dense = form == 'dense'
  if isinstance(path, (str, os.PathLike)):
    delta = _load(base, pathlib.Path(path), check_finite, dense)
    return tree.map_named(lambda name, _: delta.get(name), base)
  if not path:
    raise ValueError('load_lora: no folders given, at least one is needed')
  deltas = [_load(base, pathlib.Path(p), check_finite, dense) for p in path]
  if not dense:
    return factored.stack(base, deltas)

  def stack(name: str, _: Any) -> Any:
    places = tuple(t for t, delta in enumerate(deltas) if name in delta)
    if not places:
      return None
    return tree.apply_kernel(
      kernels.stack,
      *(deltas[t][name] for t in places),
      places=tree.Static(places),
      count=tree.Static(len(deltas)),
    )

  return tree.map_named(stack, base)


def _load(
  base: types.Params, folder: pathlib.Path, finite: bool, dense: bool
) -> dict[str, Any]:
  """Returns the task vectors of one LoRA, by the base's names."""
  config = config_lib.read(folder)
  file = next((f for f in map(folder.joinpath, _FILES) if f.is_file()), None)
  if file is None:
    raise FileNotFoundError(
      f'load_lora: {folder} holds none of {", ".join(_FILES)}: copy it again'
    )
  opened = door.open_path(file, finite=finite, free=[])
  parts, replaced, tokens = modules.sort(folder, tree.flatten(opened.params))
  weights = _Weights(base, [*parts, *replaced, *tokens])
  for head in opened.metadata.get(peft.TIED, '').split():
    if f'{head}.weight' not in weights.names:
      del parts[head]  # the same factors as those of an embedding
  found: dict[str, Any] = {}
  for module, part in parts.items():
    name, weight = weights.find(f'{module}.weight')
    found[name] = _product(weight, module, part, config, dense)
    if 'bias' in part:
      name, weight = weights.find(f'{module}.bias', part['bias'].shape)
      hyper = {
        'scale': config.scale(module, _factors(part)[0].shape[0]),
        'dtype': tree.Static(tree.wide_dtype(weight, part['bias'])),
      }
      found[name] = tree.Computed(kernels.scaled, (part['bias'],), hyper)
  for key, leaf in replaced.items():
    name, weight = weights.find(key, leaf.shape)
    found[name] = tree.Computed(kernels.difference, (weight, leaf), {})
  for module, leaf in tokens.items():
    name, weight = weights.find(f'{module}.weight')
    if name in found:
      raise ValueError(
        f'load_lora: {messages.quote(module)} has new rows and another change, '
        'which is not supported: merge it with PEFT'
      )
    rows = config.rows(module, tuple(leaf.shape), weight.shape[0])
    index = {'index': np.asarray(rows, np.int32)}
    found[name] = tree.Computed(kernels.replaced_rows, (weight, leaf), index)
  return found


def _product(
  weight: Any,
  module: str,
  part: dict[str, Any],
  config: config_lib.Config,
  dense: bool,
) -> Any:
  """Returns the task vector of a module's weight."""
  first, second = _factors(part)
  default = 'embedding_A' in part or config.transposed
  shape = tuple(weight.shape)
  transposed = kernels.is_transposed(
    shape, tuple(first.shape), tuple(second.shape), default
  )
  if transposed is None:
    raise ValueError(
      f'load_lora: the factors of {messages.quote(module)} have shapes '
      f'{tuple(first.shape)} and {tuple(second.shape)}, the base {shape}: it '
      'is of another model'
    )
  scale = config.scale(module, first.shape[0])
  if not dense and 'magnitude_vector' not in part:
    return factored.of_module(first, second, scale, shape, transposed)
  hyper = {
    'scale': scale,
    'transposed': tree.Static(transposed),
    'dtype': tree.Static(tree.wide_dtype(weight, first, second)),
  }
  if 'magnitude_vector' not in part:
    hyper['shape'] = tree.Static(shape)
    return tree.Computed(kernels.product, (first, second), hyper)
  if 'bias' in part:
    raise ValueError(
      f'load_lora: {messages.quote(module)} has DoRA and a bias of its own, '
      'which is not supported: merge it with PEFT'
    )
  norms, outputs = part['magnitude_vector'], shape[1 if transposed else 0]
  if norms.size != outputs:
    raise ValueError(
      f'load_lora: {messages.quote(module)} has {norms.size} magnitudes, the '
      f'base {outputs} outputs: it is of another model'
    )
  return tree.Computed(kernels.dora, (weight, first, second, norms), hyper)


def _factors(part: dict[str, Any]) -> tuple[Any, Any]:
  """Returns the factors A and B of a module."""
  kind = 'embedding_' if 'embedding_A' in part else ''
  return part[f'{kind}A'], part[f'{kind}B']


class _Weights:
  """The leaves of a base, by names that may be dotted."""

  def __init__(self, base: types.Params, keys: Sequence[str]):
    self.leaves = tree.named(base)
    wanted = [*keys, *(f'{key}.{end}' for key in keys for end in _ENDS)]
    found, _ = tree.common(base, {key: i for i, key in enumerate(wanted)})
    if not found:
      # The file of a base may hold the inner model (GPT-2: without
      # 'transformer.'), which the LoRA names by the class around it.
      inner = {key.partition('.')[2]: i for i, key in enumerate(wanted)}
      found, _ = tree.common(base, inner)
    self.names = {wanted[i]: name for name, i in found.items()}

  def find(
    self, key: str, shape: tuple[int, ...] | None = None
  ) -> tuple[str, Any]:
    """Returns a leaf and its name in the base, which must have the shape."""
    if key not in self.names:
      raise ValueError(
        f'load_lora: the base has no leaf {messages.quote(key)}'
        f'{tree.nearest(key, list(self.leaves))}: give the model of the LoRA, '
        'under the names of PyTorch'
      )
    name = self.names[key]
    weight = self.leaves[name]
    if shape is not None and tuple(weight.shape) != tuple(shape):
      raise ValueError(
        f'load_lora: leaf {messages.quote(key)} has shape {tuple(shape)}, in '
        f'the base {tuple(weight.shape)}: resize the base first'
      )
    return name, weight
