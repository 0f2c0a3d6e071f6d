"""SFTP by fsspec with checked host keys: fsspec accepts any key, and so any server for the one meant."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from flow_staging.transfer.failures import PermanentTransferError

MOST_NAMES = 1_000_000
"""Names in one directory: a server may list them without end."""


@lru_cache(maxsize=4)
def checked(base: Any) -> Any:
    """Return a class of fsspec's that connects to servers of known keys only.

    Its options are those of fsspec, and ``known_hosts``: a file of known keys, the user's own by default. An option
    ``host_key_policy`` says what else is to be done with an unknown one.
    """

    class CheckedSftp(base):  # type: ignore[misc]  # fsspec is not typed
        """File system of fsspec that rejects servers whose host key is not known."""

        def __init__(self, host: str, **options: Any) -> None:
            self._any_key = options.get("host_key_policy") is not None
            super().__init__(host, **options)

        def _connect(self) -> None:
            import paramiko

            options = dict(self.ssh_kwargs)
            known, silence_s = options.pop("known_hosts", None), options.pop("silence_s", None)
            options.pop("host_key_policy", None)
            self.client = paramiko.SSHClient()
            self.client.load_system_host_keys(known)
            self.client.set_missing_host_key_policy(self.host_key_policy if self._any_key else paramiko.RejectPolicy())
            try:
                self.client.connect(self.host, **options)
            except paramiko.SSHException as error:
                self.client.close()
                if "not found in known_hosts" in str(error):
                    raise PermanentTransferError(
                        f"the host key of {self.host} is not known here: put it into known_hosts, or name a file "
                        "that holds it as storage_options={'sftp': {'known_hosts': ...}}"
                    ) from error
                raise
            except BaseException:
                self.client.close()
                raise
            self.ftp = self.client.open_sftp()
            if silence_s is not None:
                # paramiko waits without end for a server that has become silent.
                self.ftp.get_channel().settimeout(silence_s)

        def ls(self, path: str, detail: bool = False, **_: Any) -> list[Any]:
            """List one directory, as fsspec's own does; raises PermanentTransferError if that does not end."""
            path = self._strip_protocol(path)
            found: list[dict[str, Any]] = []
            for each in self.ftp.listdir_iter(path):
                if len(found) == MOST_NAMES:
                    raise PermanentTransferError(f"the server lists more than {MOST_NAMES:,} names in one directory")
                if each.st_mode is None or each.st_mtime is None:
                    raise PermanentTransferError(f"the server says nothing of {each.filename!r} in the directory")
                found.append(self._decode_stat(each, path))
            return found if detail else sorted(one["name"] for one in found)

        @staticmethod
        def _get_kwargs_from_urls(urlpath: str) -> dict[str, Any]:
            given = base._get_kwargs_from_urls(urlpath)
            return {name: value for name, value in given.items() if name not in ("url_query", "url_fragment")}

        @classmethod
        def _strip_protocol(cls, path: Any) -> Any:
            if isinstance(path, list):
                return [cls._strip_protocol(each) for each in path]
            text = str(path)
            # Names as they are written: fsspec's own would take apart "?" and "#" as parts of a URL.
            if "://" not in text:
                return text
            return "/" + text.partition("://")[2].partition("/")[2]

    return CheckedSftp
