"""Where the record and the storage are, as the arguments of a function or the environment say."""

from typing import TYPE_CHECKING, NamedTuple, Self

from gahb.errors import UserError
from gahb.storage.base import Storage, record_uri, storage_here

if TYPE_CHECKING:
    from gahb.tracking.record import Record


class Place(NamedTuple):
    """A record and the storage beside it."""

    record: "Record"
    storage: Storage

    @classmethod
    def at(cls, record: str | None, storage: str | None) -> Self:
        """The place that a user means: `record` a tracking URI of MLflow, `MLFLOW_TRACKING_URI` or ./mlflow.db if left
        out; `storage` a folder or s3://BUCKET/PREFIX, `GAHB_STORAGE` or ./gahb-storage if left out."""
        from gahb.tracking.record import Record

        root = storage_here(storage)
        return cls(Record(record_uri(record), root.url), root)


def check_address(address: str | None) -> None:
    """Raise UserError for the address of a job server, to which the commands alone submit."""
    from gahb.execution.ray_jobs import is_server

    if is_server(address):
        raise UserError(f"address={address}: a job is a command's; run gahb-sweep, or give auto or HOST:6379")
