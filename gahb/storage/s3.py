"""A storage on S3: AWS, or whatever speaks its protocol at `AWS_ENDPOINT_URL_S3`.

Credentials and region are found where boto3 looks for them: environment, profile, the machine's role.
"""

import contextlib
import fcntl
import hashlib
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gahb import progress
from gahb.errors import UserError
from gahb.own_folder import own_folder
from gahb.storage.entry import Entry
from gahb.storage.local import Folder, OddFile


@dataclass(frozen=True)
class Bucket:
    """A prefix in a bucket. A file is one object, and S3 lets an object appear whole or not at all."""

    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def url(self) -> str:
        return self.uri

    def read(self, name: str, most: int | None = None) -> bytes:
        with self._translated(name):
            answer = _client().get_object(**self._at(name))
            if most is not None and answer["ContentLength"] > most:
                answer["Body"].close()
                raise OddFile(f"{self.uri}/{name} has more than {most} bytes; remove it")
            content: bytes = answer["Body"].read()
            return content

    def write(self, name: str, content: bytes) -> None:
        with self._translated(name):
            _client().put_object(**self._at(name), Body=content)

    def create(self, name: str, content: bytes) -> bool:
        try:
            with self._translated(name):
                _client().put_object(**self._at(name), Body=content, IfNoneMatch="*")
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # the other one is still at it
                return self.read(name) == content  # after a lost answer, the client's second try meets its first
            return False
        return True

    def names(self, folder: str) -> list[str]:
        prefix = self._key(folder).rstrip("/") + "/"
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        with self._translated(folder):
            return sorted(item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", []))

    def files(self, folder: str = "") -> list[Entry]:
        root, start = self._key(""), self._key(f"{folder}/" if folder else "")
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
        with self._translated(folder):
            return sorted(
                Entry(item["Key"].removeprefix(root), item["Size"], item["LastModified"].timestamp())
                for page in pages
                for item in page.get("Contents", [])
            )

    def modified(self, name: str) -> float | None:
        with contextlib.suppress(FileNotFoundError), self._translated(name):
            time: float = _client().head_object(**self._at(name))["LastModified"].timestamp()
            return time
        return None

    def remove(self, name: str) -> None:
        with self._translated(name):
            _client().delete_object(**self._at(name))

    def clear(self, folder: str, names: Collection[str]) -> None:
        for name in names:
            self.remove(name)

    def local(self, name: str) -> Path:
        path = self._cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                with tempfile.TemporaryDirectory(prefix=".fetching-", dir=path.parent) as folder:
                    with self._translated(name), progress.bar(f"fetching {path.name}", None, in_bytes=True) as advance:
                        _client().download_file(self.bucket, self._key(name), f"{folder}/file", Callback=advance)
                    (Path(folder) / "file").replace(path)
        return path

    def upload(self, path: Path, name: str) -> None:
        with self._translated(name), progress.bar(f"uploading {name}", path.stat().st_size, in_bytes=True) as advance:
            _client().upload_file(str(path), self.bucket, self._key(name), Callback=advance)
        (self._cache / name).parent.mkdir(parents=True, exist_ok=True)
        path.replace(self._cache / name)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix=".making-", dir=self._cache) as folder:
            yield Path(folder)

    @property
    def workshop(self) -> Folder:
        return Folder(self._cache)

    @property
    def _cache(self) -> Path:
        """This user's folder on this machine with what has been fetched from the bucket."""
        return own_folder("buckets", hashlib.sha256(self.uri.encode()).hexdigest()[:16])

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}".lstrip("/")

    def _at(self, name: str) -> dict[str, Any]:
        return {"Bucket": self.bucket, "Key": self._key(name)}

    @contextlib.contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """The client's exceptions as a folder would raise them."""
        _client()
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        where = f"{self.uri}/{name}"
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404"):
                raise FileNotFoundError(where) from None
            if code in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise FileExistsError(where) from None
            if code in ("NoSuchBucket", "AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
                raise UserError(f"storage {self.uri}: {error}") from None
            raise OSError(f"{where}: {error}") from error
        except NoCredentialsError as error:
            raise UserError(f"storage {self.uri}: {error}") from None
        except (BotoCoreError, Boto3Error) as error:
            raise OSError(f"{where}: {error}") from error


@lru_cache(maxsize=1)
def _client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise UserError("a storage on S3 needs boto3: pip install 'gahb[s3]'") from None
    retries = {"mode": "standard", "max_attempts": 3}  # who can wait longer does so with `with_retries`
    return boto3.client("s3", config=Config(retries=retries, connect_timeout=5, read_timeout=20))
