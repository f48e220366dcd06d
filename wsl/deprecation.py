"""Old names that keep working for one release, with a DeprecationWarning."""

from collections.abc import Callable
import functools
import inspect
from typing import Any, cast, TypeVar
import warnings

import jax

from wsl import types

Function = TypeVar('Function', bound=Callable[..., Any])


def warn(old: str, new: str, *, stacklevel: int = 3) -> None:
  """Warns that a name or an argument is replaced by another one.

  Args:
    old: the deprecated spelling, such as ``'stitch.partition(seed=)'``.
    new: the replacement.
    stacklevel: as in ``warnings.warn``; 3 blames the caller of the function
      that calls ``warn``.

  Example:
    >>> with warnings.catch_warnings(record=True) as caught:
    ...   warnings.simplefilter('always')
    ...   warn('room.old', 'room.new')
    >>> print(caught[0].message)
    room.old is deprecated, and removed in the next release: use room.new
  """
  warnings.warn(
    f'{old} is deprecated, and removed in the next release: use {new}',
    DeprecationWarning,
    stacklevel=stacklevel,
  )


def renamed(old: str, function: Function) -> Function:
  """Returns an alias of a public function under its old name.

  The alias has the signature of ``function``, warns at each call, and carries
  its old and new names in ``__deprecated__`` (the attribute of PEP 702), so
  that tables of public functions can leave it out.

  Args:
    old: the name that the function had in its room.
    function: the function under its new name, defined in ``wsl.ROOM``.

  Example:
    >>> from wsl import tree
    >>> widest = renamed('widest', tree.wide)
    >>> widest.__name__, widest.__deprecated__
    ('widest', 'tree.widest is now tree.wide')
  """
  room = function.__module__.split('.')[1]
  names = f'{room}.{old}', f'{room}.{function.__name__}'

  @functools.wraps(function)
  def alias(*args: Any, **kwargs: Any) -> Any:
    warn(*names)
    return function(*args, **kwargs)

  alias.__name__ = alias.__qualname__ = old
  alias.__doc__ = f'Deprecated name of ``{names[1]}``.'
  vars(alias)['__deprecated__'] = f'{names[0]} is now {names[1]}'
  return cast(Function, alias)


def key_or_seed(
  name: str, key: types.PRNGKey | None, seed: int | None
) -> types.PRNGKey:
  """Returns the key of a function that took an integer ``seed`` before.

  Args:
    name: the function, as its users call it.
    key: the key that it was given.
    seed: the deprecated seed that it was given; becomes
      ``jax.random.key(seed)``.

  Raises:
    TypeError: if neither or both are given.

  Example:
    >>> key_or_seed('room.draw', None, None)
    Traceback (most recent call last):
    TypeError: room.draw: missing key: give key=jax.random.key(0)
  """
  if seed is None:
    if key is None:
      raise TypeError(f'{name}: missing key: give key=jax.random.key(0)')
    return key
  if key is not None:
    raise TypeError(f'{name}: both key and seed are given: drop seed')
  warn(f'{name}(seed=)', f'key=jax.random.key({seed})', stacklevel=4)
  return jax.random.key(seed)


def positional(name: str, *arguments: str) -> Callable[[Function], Function]:
  """Decorates a function whose last positional arguments became keyword-only.

  Args:
    name: the function, as its users call it.
    *arguments: the names of its former positional arguments, in their order.

  Returns:
    A decorator: excess positional arguments are passed by name, with a warning.

  Example:
    >>> @positional('room.take', 'count')
    ... def take(items, *, count):
    ...   return items[:count]
    >>> take('abc', count=2)
    'ab'
  """

  def decorate(function: Function) -> Function:
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    operands = kinds.index(inspect.Parameter.KEYWORD_ONLY)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
      old = dict(zip(arguments, args[operands:]))
      if not old or kwargs.keys() & old or len(args) > operands + len(old):
        return function(*args, **kwargs)
      warn(f'a positional {next(iter(old))} in {name}', f'{next(iter(old))}=')
      return function(*args[:operands], **old, **kwargs)

    return cast(Function, wrapper)

  return decorate


def renamed_argument(
  name: str, old: str, new: str
) -> Callable[[Function], Function]:
  """Decorates a function one of whose keyword arguments has a new name.

  Args:
    name: the function, as its users call it.
    old: the deprecated argument.
    new: the argument that replaces it.

  Returns:
    A decorator: ``old=`` is passed on as ``new=``, with a warning.

  Example:
    >>> @renamed_argument('room.take', 'number', 'count')
    ... def take(items, *, count):
    ...   return items[:count]
    >>> take('abc', count=2)
    'ab'
  """

  def decorate(function: Function) -> Function:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
      if old in kwargs and new not in kwargs:
        warn(f'{name}({old}=)', f'{new}=')
        kwargs[new] = kwargs.pop(old)
      return function(*args, **kwargs)

    return cast(Function, wrapper)

  return decorate
