"""Saving factors as a LoRA folder of PEFT."""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

import jax

from wsl import adapters, types
from wsl.checkpoint import _save
from wsl.checkpoint._lora import config as config_lib
from wsl.checkpoint._lora import peft
from wsl.checkpoint._write import folder

_FILE = 'adapter_model.safetensors'


def save_lora(
  path: str | os.PathLike[str],
  factors: Mapping[str, adapters.Factors],
  *,
  whole: Mapping[str, Any] | None = None,
  base: types.Params = None,
  embeddings: str = peft.EMBEDDINGS,
  tied: Mapping[str, str] | None = None,
  config: Mapping[str, Any] | None = None,
  check_finite: bool = True,
  checksums: bool = False,
) -> None:
  r"""Saves factors of low rank as a LoRA folder that PEFT loads.

  .. math:: W \leftarrow W + \tfrac{\alpha}{r} B A, \qquad \alpha = s r

  ``load_lora`` of the folder returns the task vectors of the factors. The
  folder appears when both of its files are on the disk. It must be new: two
  files cannot be replaced at once.

  Args:
    path: the folder; it must not exist, or be empty.
    factors: by the name of the weight under PyTorch's names, dotted or joined
      by ``/``: ``model.layers.0.mlp.up_proj.weight``. Views must be those of
      PyTorch, as ``adapters.extract(matrices=tree.torch)`` finds them: linear
      maps ``[out, in]`` or ``[in, out]`` (then all of them, as in GPT-2),
      convolutions ``[out, in, *window]``, embeddings ``[entries, d]``.
    whole: weights that replace those of the base, by name. A bias is saved
      alone, any other weight with all of its module
      (``modules_to_save``).
    base: the model of the LoRA. It is needed only for the other weights of the
      modules of ``whole``, which PEFT saves as a whole.
    embeddings: a regular expression, searched in the last part of a module's
      name, of embeddings (``torch.nn.Embedding``). Their factors have other
      names than those of linear maps.
    tied: for each output head that is no weight of its own but an embedding,
      the embedding's module: ``{'lm_head': 'model.embed_tokens'}``. PEFT's
      layers know no ties: the head gets the factors of the embedding,
      transposed. (``merge_and_unload`` of PEFT adds both to the one weight:
      untie it first.) ``load_lora`` of a base without the head leaves them out.
    config: entries that ``adapter_config.json`` gets besides, such as
      ``{'task_type': 'CAUSAL_LM', 'base_model_name_or_path': 'name'}``.
    check_finite: whether an infinity or a NaN is an error.
    checksums: whether the SHA-256 of each tensor is recorded, as in ``save``;
      ``load_lora`` verifies it.

  Raises:
    BlockingIOError: if another process saves to ``path``.
    FileExistsError: if ``path`` is not new.
    OSError: if the files cannot be written.
    ValueError: if PEFT has no module for a leaf, naming it; if a module of
      ``whole`` needs the base; if a tied embedding has no factors; or if a
      value is not finite.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import adapters, checkpoint, tree
    >>> folder = pathlib.Path(tempfile.mkdtemp(), 'lora')
    >>> delta = {'q.weight': np.ones((2, 3), np.float32)}
    >>> found = adapters.extract(delta, rank=1, matrices=tree.torch)
    >>> checkpoint.save_lora(folder, found.factors)
    >>> base = {'q.weight': np.zeros((2, 3), np.float32)}
    >>> loaded = tree.read(checkpoint.load_lora(base, folder))
    >>> loaded['q.weight'].round(4).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

  Reference:
    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021,
    arXiv:2106.09685; the files are those of PEFT 0.21.
  """
  tensors, entries = peft.encode(
    factors, whole or {}, base, embeddings=embeddings, tied=tied or {}
  )
  entries |= config or {}
  if jax.process_index():
    return
  with folder.new('save_lora', pathlib.Path(path)) as part:
    _save.save(
      part / _FILE,
      tensors,
      metadata={'format': 'pt'} | ({peft.TIED: ' '.join(tied)} if tied else {}),
      check_finite=check_finite,
      checksums=checksums,
    )
    text = json.dumps(entries, indent=2)  # patterns have an order
    folder.write_text(part / config_lib.FILE, text + '\n')
