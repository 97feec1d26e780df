"""Object storage, the Hub and the web: the one room that knows what ``s3://`` and the like stand for."""

from rsprune.storage.cache import fetch, fetch_ahead, read_many, requests_of
from rsprune.storage.clients import StoredObject
from rsprune.storage.objects import find, glob_objects, is_remote, list_objects, read_range, recall, upload
from rsprune.storage.outputs import address_of, localize, stand_for, with_addresses, written

__all__ = [
    "StoredObject",
    "address_of",
    "fetch",
    "fetch_ahead",
    "find",
    "glob_objects",
    "is_remote",
    "list_objects",
    "localize",
    "read_many",
    "read_range",
    "recall",
    "requests_of",
    "stand_for",
    "upload",
    "with_addresses",
    "written",
]
