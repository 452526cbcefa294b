"""Keep a bounded number of files open for positioned reads; safe for threads and for processes that are forked."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

MOST = 128  # files open at once; a process may mostly open 1,024, and sockets and libraries want some
PIECE = 1 << 30  # bytes of one read; the system call takes no more than 2 GiB


class _File:
    """An open file. It is closed when its last reader is done, be it still listed or not."""

    __slots__ = ("fd",)

    def __init__(self, path: str) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class OpenFiles:
    """Files by path and stamp, the least recently used closed first."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.after_fork()
        os.register_at_fork(after_in_child=self.after_fork)

    def after_fork(self) -> None:
        """A child starts with none of its own: a thread of the parent may have held the lock."""
        self._files: OrderedDict[tuple[str, int], _File] = OrderedDict()
        self._lock = threading.Lock()

    def hold(self, path: str, stamp: int = 0) -> _File:
        """The open file; what is read through it stays readable even if the file is removed meanwhile.

        `stamp` tells one content of a path from the next: a file that was replaced is opened anew under another stamp.
        """
        key = (path, stamp)
        with self._lock:
            file = self._files.get(key)
            if file is None:
                file = self._files[key] = _File(path)
                if len(self._files) > self.most:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(key)
        return file

    def read(self, path: str, offset: int, size: int, stamp: int = 0) -> bytes:
        """Exactly `size` bytes from `offset` on. Raises OSError, also if the file ends before."""
        file = self.hold(path, stamp)
        data = os.pread(file.fd, min(size, PIECE), offset)
        if len(data) == size:
            return data
        pieces = [data]
        while len(data) < size and pieces[-1]:
            pieces.append(os.pread(file.fd, min(size - len(data), PIECE), offset + len(data)))
            data = b"".join(pieces)
        if len(data) < size:
            raise OSError(f"{path}: ends {size - len(data)} bytes before byte {offset + size}; it was changed in use")
        return data


FILES = OpenFiles()  # of this process
