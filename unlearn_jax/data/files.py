"""Yields the files of a folder, a .zip or a .tar archive; archives are never extracted.

Members of an archive are read directly from it. So a member called '../../x', a link out of the
archive or a device cannot touch the disk; each is yielded with a description of its problem.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from unlearn_jax.data.decode import has_image_name
from unlearn_jax.errors import InputError

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
# How long a file's time may not change: where times are in seconds (FAT: two seconds); elsewhere.
_COARSE_SECONDS, _FINE_SECONDS = 2.0, 0.02
MAX_BYTES = 64 * 2**20  # photographs are smaller; an archive bomb is larger

# Errors from reading a broken archive; zipfile raises NotImplementedError for an unknown
# compression and UnicodeDecodeError for names that are marked as UTF-8 but are not.
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError,
           UnicodeDecodeError)
_HIDDEN = "hidden: its name begins with a dot, or is __MACOSX"


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """One file: its path within the source, why it cannot be read ('' if it can), its content.

    A folder that is left out is a file with a problem and a path that ends in '/'. Bytes of a path
    that are not UTF-8 are spelled out (\\xe9), so that it can be written, and named as the problem.
    A hidden file or folder has a problem, too; the content of a hidden folder is not walked over.
    `read` must be called before the next file is taken from the walk.
    """

    path: str
    problem: str
    read: Callable[[], bytes]

    @property
    def hidden(self) -> bool:
        """Whether its name marks it as hidden: .DS_Store, ._1.jpg, .git/."""
        return self.problem == _HIDDEN


def locate(path: str, wanted: str) -> Path:
    """The folder or archive at `config.data.path`.

    If a folder holds one archive and no image, the archive is returned.

    Args:
      path: as the user wrote it.
      wanted: what it should hold, for the message.

    Raises:
      InputError: nothing is there, or it is neither a folder nor an archive.
    """
    what = f"give {wanted} as a folder or as one of {', '.join(ARCHIVES)}"
    if not path:
        raise InputError(f"config.data.path is empty; {what}")
    found = Path(path).expanduser()
    if not os.path.exists(found):  # unlike Path.exists, False for an impossible path
        raise InputError(f"config.data.path is {path!r}, which does not exist; {what}")
    if found.is_dir():
        names = os.listdir(found)
        archives = [n for n in names if n.lower().endswith(ARCHIVES)]
        if len(archives) == 1 and not any(
                has_image_name(n) or (found / n).is_dir() for n in names):
            return found / archives[0]
    elif not found.name.lower().endswith(ARCHIVES):
        raise InputError(f"config.data.path is {path!r}, a file of another kind; {what}")
    return found


def signature(source: Path) -> str:
    """A digest of the file system's entries; it changes when files are added, removed or changed.

    The entries are names, sizes, both times and inodes, without contents. A program can set the
    modification time (mtime), but not the change time (ctime), and a file that replaces another one
    has another inode. After a very recent change this function waits for as long as the file
    system's clock may stand still, so that a later change has a later time.

    Raises:
      InputError: a folder that cannot be read.
    """
    if source.is_dir():
        found = _folder_paths(source)
        read = signature_of(source, [path for path, problem in found if problem != _HIDDEN])
        # Only the names of hidden files count, since programs that show a folder write such files.
        hidden = "\n".join(path for path, problem in found if problem == _HIDDEN)
        return hashlib.sha256(f"{read}|{_in_utf8(hidden)}".encode()).hexdigest()
    return signature_of(source.parent, [source.name])


def signature_of(root: Path, paths: list[str]) -> str:
    """`signature` of the files at these paths below root; they need not exist."""
    found, newest = _signature(root, paths)
    if (seconds := _unsettled(newest)) > 0:
        time.sleep(seconds)
        found, _ = _signature(root, paths)
    return found


def _signature(root: Path, paths: list[str]) -> tuple[str, int]:
    """The digest, and the time of the latest change in nanoseconds since 1970."""
    digest, newest = hashlib.sha256(), 0
    for path in paths:
        try:
            info = os.stat(root / path)
            known = f"{info.st_size}|{info.st_mtime_ns}|{info.st_ctime_ns}|{info.st_ino}"
            newest = max(newest, info.st_ctime_ns)
        except OSError as e:
            known = str(e.strerror)
        digest.update(f"{path}|{known}\n".encode(errors="surrogateescape"))
    return digest.hexdigest(), newest


def _unsettled(changed_ns: int) -> float:
    """Seconds until another change of a file must give a different time; 0: it does so now."""
    grain = _COARSE_SECONDS if changed_ns % 10**9 == 0 else _FINE_SECONDS
    # The time is in the future if the file system's clock is ahead of this machine's.
    return min(grain, max(0.0, grain - (time.time() - changed_ns / 1e9)))


def walk(source: Path) -> Iterator[SourceFile]:
    """Yields every file of a folder or archive, also unreadable and hidden ones.

    The files of a folder or .zip are sorted by path; a .tar keeps its own order.

    Raises:
      InputError: the archive is not an archive, is damaged, cut off or encrypted, or a file cannot
        be read.
    """
    if source.is_dir():
        return _walk_folder(source)
    return _walk_zip(source) if source.name.lower().endswith(".zip") else _walk_tar(source)


def _folder_paths(root: Path) -> list[tuple[str, str]]:
    """(path, problem) of the files below root, sorted; paths are '/'-separated.

    Links to folders are followed, and no folder is read twice. Folders that are not links come
    first, so that a file has its own path rather than a link's. A link to a folder that was read
    already, or to a hidden one, is listed with that problem and a path that ends in '/'.
    """
    found: list[tuple[str, str]] = []
    known: dict[str, str] = {}  # the path of each folder that was read, by the folder itself
    tops = [str(root)]

    def fail(error: OSError) -> None:
        raise InputError(f"folder {error.filename!r} cannot be read: {error.strerror}")

    for top in tops:  # the loop adds links
        for folder, names, files in os.walk(top, onerror=fail):
            relative = os.path.relpath(folder, root)
            prefix = "" if relative == "." else relative.replace(os.sep, "/") + "/"
            real = os.path.realpath(folder)
            if real in known:
                found.append((prefix, f"folder that is read already: as {known[real]!r}"))
                names.clear()
                continue
            known[real] = _in_utf8(prefix or "./")
            found += [(f"{prefix}{n}/", _HIDDEN) for n in names if _is_hidden(n)]
            names[:] = sorted(n for n in names if not _is_hidden(n))
            links = (os.path.join(folder, n) for n in names)
            tops += [link for link in links if os.path.islink(link)]
            found += [(prefix + f, _HIDDEN if _is_hidden(f) else "") for f in files]
    return sorted(found)


def _walk_folder(root: Path) -> Iterator[SourceFile]:
    for path, problem in _folder_paths(root):
        yield _source_file(path, problem or _file_problem(root / path), _file_reader(root / path))


def plain_file(root: Path, path: str) -> SourceFile:
    """The file at a path below root; a missing file is reported as its problem."""
    return _source_file(path, _file_problem(root / path), _file_reader(root / path))


def _source_file(path: str, problem: str, read: Callable[[], bytes]) -> SourceFile:
    text = _in_utf8(path)
    if text != path:
        problem = problem or "file name is not UTF-8"
    return SourceFile(text, problem, read)


def _in_utf8(path: str) -> str:
    """The path; bytes that are not UTF-8, which Python holds as lone surrogates, as \\xe9."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _file_problem(path: Path) -> str:
    try:
        info = os.stat(path)
    except OSError as e:
        return f"unreadable file: {e.strerror}"
    return _size_problem(info.st_size) if stat.S_ISREG(info.st_mode) else "no plain file"


def _file_reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return path.read_bytes()
        except OSError as e:
            raise InputError(f"{str(path)!r} cannot be read: {e.strerror}") from e

    return read


def _walk_zip(source: Path) -> Iterator[SourceFile]:
    with _damage_is_an_input_error(source), zipfile.ZipFile(source) as archive:
        hidden: set[str] = set()
        for member in sorted(archive.infolist(), key=lambda m: m.filename):
            if _hidden_part(member.filename):
                yield from _first_of(hidden, member.filename)
                continue
            if member.is_dir():
                continue
            if member.flag_bits & 1:
                raise InputError(f"archive {str(source)!r} is encrypted; give one without password")
            # the upper half holds the Unix file type if a Unix program wrote the archive
            kind = stat.S_IFMT(member.external_attr >> 16)
            problem = "" if kind in (0, stat.S_IFREG) else "link or device in the archive"
            yield _member(source, member.filename, member.file_size, problem,
                          functools.partial(archive.read, member))


def _walk_tar(source: Path) -> Iterator[SourceFile]:
    with _damage_is_an_input_error(source), tarfile.open(source, "r:*") as archive:
        hidden: set[str] = set()
        for member in archive:
            name = member.name + "/" * member.isdir()
            if _hidden_part(name):
                yield from _first_of(hidden, name)
                continue
            if member.isdir():
                continue
            problem = "" if member.isreg() else "link or device in the archive"
            yield _member(source, member.name, member.size, problem,
                          functools.partial(_read_tar, archive, member))
        # Reading to the end checks the checksum after compressed data; uncompressed data must hold
        # the archive's closing block.
        while archive.fileobj.read(2**20):
            continue
        if isinstance(archive.fileobj, io.BufferedReader) \
                and source.stat().st_size < archive.offset + tarfile.BLOCKSIZE:
            raise EOFError("it ends before its closing block")


def _read_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "a plain file has content"
    return file.read()


def _member(source: Path, path: str, size: int, problem: str,
            read: Callable[[], bytes]) -> SourceFile:
    def read_member() -> bytes:
        with _damage_is_an_input_error(source):
            return read()

    parts = PurePosixPath(path.replace("\\", "/")).parts
    if parts and (parts[0].startswith("/") or ".." in parts):
        problem = "path leads out of the archive"
    return _source_file(path, problem or _size_problem(size), read_member)


@contextlib.contextmanager
def _damage_is_an_input_error(source: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as e:
        first = (str(e) or type(e).__name__).splitlines()[0].rstrip(":")
        raise InputError(f"archive {str(source)!r} is damaged or incomplete ({first}); "
                         "download it again") from e
    except OSError as e:  # includes gzip.BadGzipFile
        raise InputError(f"archive {str(source)!r} cannot be read: {e}") from e


def _size_problem(size: int) -> str:
    return "" if size <= MAX_BYTES else f"larger than {MAX_BYTES // 2**20} MiB"


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _hidden_part(path: str) -> str:
    """A path up to its first hidden part, a folder with '/' at its end; '' if nothing is hidden."""
    parts = path.replace("\\", "/").split("/")
    for n, part in enumerate(parts):
        if _is_hidden(part) and part not in (".", ".."):  # '..' is reported as another problem
            return "/".join(parts[:n + 1]) + "/" * (n + 1 < len(parts))
    return ""


def _first_of(hidden: set[str], path: str) -> Iterator[SourceFile]:
    """Yields the hidden file or folder in an archive's path, the first time that it occurs."""
    part = _hidden_part(path)
    if part not in hidden:
        hidden.add(part)
        yield SourceFile(_in_utf8(part), _HIDDEN, lambda: b"")
