"""The progress of a merge on a terminal, or plain lines in a pipe."""

import sys
import time

from wsl import checkpoint


class Progress:
  """Shows bytes, rate and the time left: a line that is rewritten, or lines.

  Attributes:
    started: the time at the start, in seconds.
    shown: the time of the last line.
  """

  def __init__(self, started: float) -> None:
    self.started = started
    self.shown = started

  def __call__(self, name: str, done: int, total: int) -> None:
    del name
    now = time.monotonic()
    every = 0.2 if sys.stderr.isatty() else 10.0
    if now - self.shown < every and done < total:
      return
    self.shown = now
    size = checkpoint.format_bytes
    rate = done / max(now - self.started, 1e-3)
    left = (total - done) / max(rate, 1.0)
    end = '\r' if sys.stderr.isatty() and done < total else '\n'
    sys.stderr.write(
      f'{size(done):>10} of {size(total)}  {size(rate):>10}/s  '
      f'{left:5.0f} s left{end}'
    )
    sys.stderr.flush()
