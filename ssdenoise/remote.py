"""Sources in object stores (`s3://bucket/key`) and on web servers (`https://host/path`), and stores in object stores.

Where the object store is and who may read it say the environment variables that its other clients go by, such as
`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. Without credentials objects are read
as by anyone; `AWS_SKIP_SIGNATURE=false` asks for those that a machine in the cloud has by itself.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

from ssdenoise.errors import ConfigError, MissingInputError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "https", "http")

#: Any of them says that there are credentials.
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)

#: Bytes that small reads share, and most bytes of one request, so that it ends in time.
BUFFER, REQUEST = 2**14, 2**24
CLIENT = {"connect_timeout": "5s", "timeout": "60s"}
RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}


def is_remote(source: str) -> bool:
    """Whether a source is a URL.

    Raises
    ------
    ConfigError
        If it is one of another kind than can be read.
    """
    if (match := re.match(r"([a-z][a-z0-9+.-]*)://", source, re.IGNORECASE)) is None:
        return False
    if match[1] not in SCHEMES:
        raise ConfigError(f"{source} begins with {match[0]}; needed a path, or s3://, https:// or http://")
    return True


def located(root: Path, source: str) -> Path | Remote:
    """What a source names: a URL, or a path from the root."""
    return Remote(source) if is_remote(source) else root / source


@dataclass(frozen=True)
class Remote:
    """A file, or the root of a Zarr, by its URL; has of a `Path` what readers ask for."""

    url: str
    #: What a listing said of the file.
    known: Any = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Last part of the URL."""
        return Path(self.key).name

    @property
    def suffix(self) -> str:
        """How the name ends, from the last dot on."""
        return Path(self.key).suffix

    @property
    def key(self) -> str:
        """The path on the server, or within the bucket."""
        if self.is_listed:  # a key of S3 may hold any sign
            return "".join(self.url.split("/", 3)[3:]).rstrip("/")
        return unquote(urlsplit(self.url).path).strip("/")

    @property
    def is_listed(self) -> bool:
        """Whether the server says which files it has."""
        return self.url.startswith("s3://")

    @property
    def is_zarr(self) -> bool:
        """Whether it is no single file."""
        return self.suffix == ".zarr"

    @cached_property
    def store(self) -> ObjectStore:
        """The server, or the bucket."""
        return self.store_at("/".join(self.url.split("/", 3)[:3]))

    def store_at(self, url: str) -> ObjectStore:
        """What lies under an address on the same server or in the same bucket."""
        from obstore.store import HTTPStore, S3Store

        if not self.key or (not self.is_listed and "?" in self.url):
            raise ConfigError(
                f"{self.url} names no file; needed such as s3://bucket/key or https://host/path, without `?`"
            )
        # the address says whether it is http
        options: Any = {"client_options": CLIENT | {"allow_http": True}, "retry_config": RETRIES}
        if not self.is_listed:
            return HTTPStore.from_url(url, **options)
        if not any(name in os.environ for name in (*CREDENTIALS, "AWS_SKIP_SIGNATURE")):
            options["skip_signature"] = True
        return S3Store.from_url(url, **options)

    def zarr(self) -> Any:
        """The Zarr as a store of zarr's, which no one can write to."""
        from zarr.storage import ObjectStore

        return ObjectStore(self.store_at(self.url.rstrip("/")), read_only=True)

    @cached_property
    def files(self) -> list[Any]:
        """What the server says of the file, or of those files of a Zarr's root that say what it is.

        Raises
        ------
        MissingInputError
            If there is none, it may not be read, or the server does not answer.
        """
        import obstore

        if self.known is not None:
            return [self.known]
        names = ["zarr.json", ".zattrs", ".zgroup"] if self.is_zarr else [""]
        found = []
        with reached(self.url):
            for name in names:
                with suppress(FileNotFoundError):
                    found.append(obstore.head(self.store, f"{self.key}/{name}".rstrip("/")))
            if not found:
                raise FileNotFoundError
        return found

    def fingerprint(self) -> dict[str, int | str]:
        """What tells one version from another without reading it: size and entity tag, or when it was changed."""
        tags = [str(one["e_tag"] or one["last_modified"].isoformat()) for one in self.files]
        return {"bytes": sum(one["size"] for one in self.files), "e_tag": " ".join(tags)}

    def open(self) -> BinaryIO:
        """The file, read by ranges of bytes; threads may share it as they share any file."""
        return io.BufferedReader(_Ranges(self, self.files[0]["size"]), BUFFER)

    def matches(self) -> list[Remote]:
        """What a pattern with `*` in the last part fits, in order of the names."""
        import obstore

        if not self.is_listed:
            raise ConfigError(
                f"{self.url} is a pattern, and web servers list no files; needed are s3:// or single files"
            )
        with reached(self.url):
            inside = obstore.list_with_delimiter(self.store, prefix=str(Path(self.key).parent).strip("."))
        found = {str(one["path"]): one for one in inside["objects"]} | dict.fromkeys(inside["common_prefixes"])
        bucket = "/".join(self.url.split("/", 3)[:3])
        fitting = sorted(key for key in found if fnmatchcase(Path(key).name, self.name))
        return [Remote(f"{bucket}/{key}", found[key]) for key in fitting]


class Bucket:
    """What lies under an address in an object store, to be written.

    Parameters
    ----------
    url : str
        Such as `s3://bucket/prefix`.
    """

    def __init__(self, url: str) -> None:
        remote = Remote(url)
        if not remote.is_listed:
            raise ConfigError(f"{url} cannot be written; needed such as s3://bucket/prefix")
        self.url, self._store = url, remote.store_at(url)

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whole or not at all."""
        import obstore

        with reached(f"{self.url}/{key}"):
            obstore.put(self._store, key, data)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects."""
        import obstore

        if keys:
            with reached(self.url):
                obstore.delete(self._store, list(keys))

    def sizes(self) -> dict[str, int]:
        """Size of each object, by its key."""
        import obstore

        with reached(self.url):
            return {str(one["path"]): int(one["size"]) for batch in obstore.list(self._store) for one in batch}

    def zarr(self, path: str) -> Any:
        """A Zarr in it as a store of zarr's, which no one can write to."""
        return Remote(f"{self.url}/{path}").zarr()


@contextmanager
def reached(url: str) -> Iterator[None]:
    """Faults of a server as one clear sentence."""
    from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except FileNotFoundError:
        raise MissingInputError(f"no object {url}; correct the sheet, or upload it") from None
    except (PermissionDeniedError, UnauthenticatedError):
        raise MissingInputError(
            f"{url} may not be read; needed are credentials that allow it (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "of an object store), or another address"
        ) from None
    except NotSupportedError:
        raise MissingInputError(f"{url} is sent as a whole only; needed are ranges of bytes: download it") from None
    except BaseError as error:
        why = str(error).partition("\n")[0].strip()
        raise MissingInputError(f"{url} cannot be reached ({why}); check the address, or try again later") from None


class _Ranges(io.RawIOBase):
    """An object as a file; each read is a request."""

    def __init__(self, remote: Remote, size: int) -> None:
        self.remote, self.size, self.position = remote, size, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or the part of it that one request may have."""
        import obstore

        number = max(0, min(len(buffer), REQUEST, self.size - self.position))
        if number:
            with reached(self.remote.url):
                data = obstore.get_range(self.remote.store, self.remote.key, start=self.position, length=number)
            buffer[:number] = memoryview(data)
            self.position += number
        return number
