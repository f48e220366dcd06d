"""A recipe: which models are merged by which method, with which parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Model(NamedTuple):
  """A folder of a model, with an adapter that is added to it or None."""

  path: str
  lora: str | None = None

  def __str__(self) -> str:
    return self.path if self.lora is None else f'{self.path}+{self.lora}'


class Source(NamedTuple):
  """One input of a slice.

  Attributes:
    model: the folder.
    layers: the range ``(first, last + 1)``; ``None`` takes all.
    parameters: settings that hold for this input, by parameter name.
  """

  model: Model
  layers: tuple[int, int] | None
  parameters: Mapping[str, Any]


class Slice(NamedTuple):
  """Layers of the output, merged from equally many layers of each source."""

  sources: tuple[Source, ...]
  base: Model | None
  parameters: Mapping[str, Any]


class Module(NamedTuple):
  """A part of a model with numbered layers; ``name`` None is the whole."""

  name: str | None
  slices: tuple[Slice, ...]
  parameters: Mapping[str, Any]


class Row(NamedTuple):
  """The row of a model that a token takes.

  Attributes:
    model: which model.
    token: which of its tokens, or rows; None is the same token.
  """

  model: Model
  token: str | int | None = None


class Tokenizer(NamedTuple):
  """The vocabulary of the output.

  Attributes:
    source: ``'base'``, ``'union'`` or a model.
    tokens: by token, the row that it takes in models that do not have it (None
      for zeros), and whether it takes it in all models.
    multiple: the number of rows is padded to a multiple of it, or None.
  """

  source: str | Model
  tokens: Mapping[str, tuple[Row | None, bool]]
  multiple: int | None


class Recipe(NamedTuple):
  """A merge of checkpoints.

  Attributes:
    method: mergekit's name of the method.
    base: the base model, or None.
    modules: the parts of the output.
    parameters: settings that hold everywhere, by parameter name.
    dtype: the inputs are cast to it, or None.
    out_dtype: the output is cast to it, or None.
    tokenizer: the vocabulary of the output; None keeps that of the base.
    chat_template: ``'auto'``, a template of Jinja, or None.
  """

  method: str
  base: Model | None
  modules: tuple[Module, ...]
  parameters: Mapping[str, Any]
  dtype: str | None
  out_dtype: str | None
  tokenizer: Tokenizer | None
  chat_template: str | None


def models(recipe: Recipe) -> list[Model]:
  """Returns the models that a recipe reads, the base first.

  Example:
    >>> from wsl import recipes
    >>> content = {'merge_method': 'linear', 'models': [{'model': 'a'}]}
    >>> models(recipes.parse(content))
    [Model(path='a', lora=None)]
  """
  found = [] if recipe.base is None else [recipe.base]
  for module in recipe.modules:
    for part in module.slices:
      found += [] if part.base is None else [part.base]
      found += [source.model for source in part.sources]
  return list(dict.fromkeys(found))
