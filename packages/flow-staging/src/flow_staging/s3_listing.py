"""Listing of the objects of a bucket below a prefix."""

from __future__ import annotations

import re
from collections.abc import Callable

from flow_core.files import File, Glob
from flow_staging.transfer.failures import Final
from flow_staging.transfer.limits import SizeLimits

_MOST_IDLE = 100
"""Pages in a row without a new name, at most: keys of directories fill some, a broken server all."""

Listing = Callable[..., dict[str, object]]
"""The call ``list_objects_v2`` of a client, which returns one page."""


def prefix_of(file: File) -> tuple[str, str]:
    """Return the bucket and the begin of the keys of what is in a directory, or the one before a pattern.

    Raises Final.
    """
    url = file.base if isinstance(file, Glob) else file.url
    match = re.fullmatch(r"(?i:s3)://([^/?#@:]+)(?:/(.*))?", url, re.DOTALL)
    if match is None:
        raise Final("an s3 URL of a directory has the form s3://bucket/prefix")
    prefix = (match[2] or "").rstrip("/")
    return match[1], f"{prefix}/" if prefix else ""


def names_below(file: File, ask: Listing, check: Callable[[], None], limits: SizeLimits) -> dict[str, str]:
    """Return size and ETag of each object below a directory, or the one before a pattern, by its name from there.

    Objects that stand for directories, whose keys end with a slash, are left out.

    Args:
        file: The directory or the pattern.
        ask: What gives a page of the listing.
        check: Raises if the transfer is to end; called before each page.
        limits: How many there may be.

    Raises:
        Final: the URL names no directory, there are too many, or the listing does not end.
    """
    bucket, prefix = prefix_of(file)
    found: dict[str, str] = {}
    options: dict[str, object] = {"Bucket": bucket, "Prefix": prefix}
    idle = 0
    while True:
        check()
        before = len(found)
        answer = ask(**options)
        contents = answer.get("Contents")
        for each in contents if isinstance(contents, list) else ():
            if not each["Key"].endswith("/"):
                found[each["Key"][len(prefix) :]] = f"{each.get('Size')} {each.get('ETag')}"
        limits.check_count(len(found))
        if not answer.get("IsTruncated"):
            return found
        idle = idle + 1 if len(found) == before else 0
        if idle >= _MOST_IDLE:
            raise Final(f"the listing of the bucket does not end: {idle} pages in a row have named nothing new")
        options["ContinuationToken"] = answer["NextContinuationToken"]
