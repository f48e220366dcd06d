"""Embedded and local data sets, as arrays. Nothing is downloaded.

An image task is a ``Task``: a training and a test ``Split``, each with ``x``
``[N, ...]`` and integer labels ``y`` ``[N]``. Text is windows of byte tokens.
"""

from wsl.data._digits import digits as digits
from wsl.data._folder import folder as folder
from wsl.data._split import Split as Split
from wsl.data._split import Task as Task
from wsl.data._text import text as text
