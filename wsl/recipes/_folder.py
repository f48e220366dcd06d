"""The folders of models that a recipe names."""

from collections.abc import Iterable, Mapping
import json
import pathlib
from typing import Any, NamedTuple

from wsl import checkpoint, deltas, tree
from wsl.recipes import _recipe


class Folder(NamedTuple):
  """A model on disk.

  Attributes:
    path: its folder, or its file.
    params: its tensors by name, on demand, those of an adapter added.
    config: the content of its config.json, or None.
    adapter: the folder of the adapter, or None.
  """

  path: pathlib.Path
  params: Mapping[str, Any]
  config: Mapping[str, Any] | None
  adapter: pathlib.Path | None = None


def open_all(
  models: Iterable[_recipe.Model],
  places: Mapping[str, str] | None = None,
  *,
  check_finite: bool = True,
) -> dict[_recipe.Model, Folder]:
  """Opens models; only headers are read.

  Args:
    models: references, as in a recipe.
    places: folders by reference, for names that are not paths, such as those
      of a hub.
    check_finite: whether reading an infinity or a NaN is an error.

  Returns:
    The models by reference.

  Raises:
    FileNotFoundError: if there is no such folder.
    ValueError: if a folder holds no model that can be read.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import checkpoint, recipes
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> checkpoint.save(folder, {'w': np.ones(2)})
    >>> model = recipes.Model('hub/name')
    >>> opened = open_all([model], {'hub/name': str(folder)})
    >>> opened[model].params['w'].shape
    (2,)
  """
  places = dict(places or {})
  found = {}
  for model in models:
    path = _place(model, model.path, places)
    loaded = checkpoint.load(path, lazy=True, check_finite=check_finite)
    params, adapter = tree.named(loaded), None
    if model.lora is not None:
      adapter = _place(model, model.lora, places)
      delta: Any = checkpoint.load_lora(
        params, adapter, check_finite=check_finite
      )
      params = deltas.apply(params, delta)
    config = read_json(beside(path) / 'config.json')
    found[model] = Folder(path, params, config, adapter)
  return found


def _place(
  model: _recipe.Model, name: str, places: Mapping[str, str]
) -> pathlib.Path:
  """Returns the folder of a name in a recipe."""
  path = pathlib.Path(places.get(name, name)).expanduser()
  if not path.exists():
    # A folder with '+' in its name: 'FOLDER+ADAPTER' is two folders.
    whole = model.lora is not None and pathlib.Path(str(model)).exists()
    remedy = f'; or write model: {{path: "{model}"}}' if whole else ''
    raise FileNotFoundError(
      f"{model}: there is no folder '{path}': download the model, or say where "
      f'it is by --at {name}=FOLDER{remedy}'
    )
  return path


def head(folder: Folder, name: str) -> Any:
  """Returns the input embedding in place of a missing output head, if tied.

  A file holds tied embeddings once. Merged with a model whose head is a tensor
  of its own, the head of the tied model is its embedding.
  """
  config = folder.config or {}
  if not name.endswith('lm_head.weight') or not config.get(
    'tie_word_embeddings', True
  ):
    return None
  embeddings = [n for n in folder.params if n.endswith(_EMBEDDINGS)]
  return folder.params[embeddings[0]] if len(embeddings) == 1 else None


# The input embedding of language models.
_EMBEDDINGS = ('embed_tokens.weight', 'wte.weight', 'embed_in.weight')


def read_json(file: pathlib.Path) -> Mapping[str, Any] | None:
  """Reads an object from a file of JSON; None if there is no file."""
  if not file.is_file():
    return None
  try:
    content = json.loads(file.read_text(encoding='utf-8'))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{file} is not JSON: {error}') from None
  if not isinstance(content, dict):
    raise ValueError(f'{file} holds no object')
  return content


def beside(path: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a model, which may be a file."""
  return path if path.is_dir() else path.parent
