"""Every moment at which a process changes the disk, and what may happen there: death, loss of power, a full disk, signals.

Installed in a process of its own, which does not live on: nothing is put back.
"""

import errno
import io
import os
import re
import shutil
import signal
from pathlib import Path

_WRITING = set("wax+")
_RANDOM = re.compile(r"\.[0-9a-f]{32}\.part")


class Moments:
    """Counts the calls that change a folder; at the `fatal` one something happens.

    The moment of a call lies before it, so that "after" a call is the next one's moment; writing has a second moment, when
    half of the bytes are there. Loss of power: whatever was not flushed is undone, names and bytes, before the process dies.

    Args:
        folder: what is done elsewhere does not count.
        fatal: number of the moment, from 1; None only counts.
        action: "kill", "power loss", "stop", "full disk", "read-only" or the name of a signal.
    """

    def __init__(self, folder, fatal=None, action="kill"):
        self.folder, self.fatal, self.action = str(folder), fatal, action
        self.labels = []
        self.refused = None
        self.undo = []  # (folder whose flushing makes it last, how to undo it)
        self.dirty = {}  # inode -> path
        self.real = {name: getattr(os, name) for name in "fsync rename replace mkdir unlink rmdir open".split()}
        self.real_open = io.open

    def install(self):
        os.fsync, os.open, os.mkdir = self._fsync, self._os_open, self._mkdir
        os.rename = os.replace = self._rename
        os.unlink = os.remove = self._unlink
        os.rmdir, io.open = self._rmdir, self._open

    def reach(self, label, creates, half=None):
        label = _RANDOM.sub(".part", label)
        self.labels.append(label)
        if creates and self.refused:
            raise OSError(self.refused, os.strerror(self.refused), label)
        if len(self.labels) != self.fatal:
            return
        if half is not None:
            half()
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "power loss":
            self._lose_power()
        elif self.action in ("full disk", "read-only"):
            self.refused = errno.ENOSPC if self.action == "full disk" else errno.EACCES
            if creates:
                raise OSError(self.refused, os.strerror(self.refused), label)
        else:
            os.kill(os.getpid(), signal.SIGSTOP if self.action == "stop" else getattr(signal, self.action))

    def _inside(self, path):
        return str(Path(path).absolute()).startswith(self.folder)

    def _where(self, path, dir_fd):
        return Path(path) if dir_fd is None else Path(self.folder, ".run", path)  # the only folder that is removed

    def _lasting_with(self, path, how):
        self.undo.append((path.parent, how))

    def _fsync(self, handle):
        status = os.fstat(handle)
        self.reach(f"flush {Path(self.dirty.get(status.st_ino, 'a folder')).name}", True)
        self.dirty.pop(status.st_ino, None)
        self.undo = [(p, how) for p, how in self.undo if p.exists() and p.stat().st_ino != status.st_ino]
        self.real["fsync"](handle)

    def _rename(self, old, new, **rest):
        old, new = Path(old), Path(new)
        self.reach(f"rename to {new.name}", False)
        before = new.read_bytes() if new.exists() else None
        self.real["replace"](old, new)

        def back():
            self.real["replace"](new, old)
            if before is not None:
                new.write_bytes(before)

        self._lasting_with(new, back)

    def _mkdir(self, path, *rest, **others):
        if self._inside(path):
            self.reach(f"make {Path(path).name}", True)
        self.real["mkdir"](path, *rest, **others)
        if self._inside(path):
            self._lasting_with(Path(path), lambda: shutil.rmtree(path))

    def _unlink(self, path, *, dir_fd=None):
        if dir_fd is None and not self._inside(path):
            self.real["unlink"](path)
            return
        place = self._where(path, dir_fd)
        self.reach(f"remove {place.name}", False)
        content = place.read_bytes() if place.exists() else None
        self.real["unlink"](path, dir_fd=dir_fd)
        if content is not None:
            self._lasting_with(place, lambda: place.write_bytes(content))

    def _rmdir(self, path, *, dir_fd=None):
        place = Path(path) if dir_fd is None else Path(self.folder, path)
        self.reach(f"remove {place.name}", False)
        self.real["rmdir"](path, dir_fd=dir_fd)
        self._lasting_with(place, lambda: self.real["mkdir"](place))

    def _os_open(self, path, flags, *rest, **others):
        if not flags & os.O_CREAT or not self._inside(path):
            return self.real["open"](path, flags, *rest, **others)
        self.reach(f"create {Path(path).name}", True)
        self._created(Path(path))
        return self.real["open"](path, flags, *rest, **others)

    def _created(self, path):
        if not path.exists():
            self._lasting_with(path, lambda: path.unlink(missing_ok=True))

    def _open(self, path, mode="r", *rest, **others):
        if not _WRITING & set(mode) or isinstance(path, int) or not self._inside(path):
            return self.real_open(path, mode, *rest, **others)
        self.reach(f"create {Path(path).name}", True)
        self._created(Path(path))
        return _Writing(self.real_open(path, mode, *rest, **others), Path(path), self)

    def _lose_power(self):
        os.fsync, os.open, os.mkdir, os.rmdir = (self.real[name] for name in ("fsync", "open", "mkdir", "rmdir"))
        os.rename, os.replace, io.open = self.real["rename"], self.real["replace"], self.real_open
        os.unlink = os.remove = self.real["unlink"]
        for inode in self.dirty:
            for path in Path(self.folder).rglob("*"):
                if path.stat().st_ino == inode:
                    path.write_bytes(b"")
        for _, how in reversed(self.undo):
            how()
        os.kill(os.getpid(), signal.SIGKILL)


class _Writing:
    """A file that is being written."""

    def __init__(self, file, path, moments):
        self.file, self.path, self.moments = file, path, moments
        moments.dirty[os.fstat(file.fileno()).st_ino] = path

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        def half():
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            self.file.seek(0)

        self.moments.reach(f"write {self.path.name}", True)
        self.moments.reach(f"half of {self.path.name}", True, half)
        return self.file.write(content)
