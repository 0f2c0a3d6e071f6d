"""HTTP settings from the environment: proxies, and certificates to trust."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

from flow_core.errors import ConfigurationError
from flow_staging.transfer.failures import PermanentTransferError

if TYPE_CHECKING:
    from urllib3.util import Url


def trusted(ca: str | None) -> ssl.SSLContext:
    """Return a context of trusted certificates: a variable's bundle, else the system's and certifi's; and ``ca`` (PEM).

    Raises:
        PermanentTransferError: the bundle cannot be used; the message names the variable.
    """
    bundle = next((name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)), None)
    if bundle is not None:
        path = os.environ[bundle]
        try:
            folder = os.path.isdir(path)
            context = ssl.create_default_context(capath=path) if folder else ssl.create_default_context(cafile=path)
        except OSError as error:  # of which ssl.SSLError is one
            raise PermanentTransferError(
                f"the certificates of {bundle}={path} cannot be used: {error.strerror or error}"
            ) from error
    else:
        context = ssl.create_default_context()  # heeds SSL_CERT_FILE and SSL_CERT_DIR itself
        if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
            # Beside the system's certificates: where these are missing, certifi's are enough.
            import certifi

            context.load_verify_locations(certifi.where())
    if ca is not None:
        context.load_verify_locations(cadata=ca)
    return context


def pem_of(ca_bundle: str | None) -> str | None:
    """Return the certificates of an option ``ca_bundle`` as text: those of the file it names, or itself.

    Raises:
        ConfigurationError: it cannot be read, or holds none.
    """
    if ca_bundle is None:
        return None
    text = ca_bundle
    if "-----BEGIN" not in text:
        try:
            text = Path(ca_bundle).read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise ConfigurationError(f"ca_bundle={ca_bundle!r} cannot be read: {error.strerror}") from error
    try:
        # Made only to see that the text can be used, while the user still reads the error.
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"ca_bundle holds no certificates in PEM form: {error}") from error
    return text


def proxy_for(url: Url) -> str:
    """Return the proxy that the environment names for a server, empty for none."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme or "") or proxies.get("all") or ""
    host = (url.host or "").strip("[]")
    port = url.port or (443 if url.scheme == "https" else 80)
    # With and without the port, as no_proxy may have either.
    if not proxy or proxy_bypass(host) or proxy_bypass(f"{host}:{port}") or _in_networks(host, proxies):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _in_networks(host: str, proxies: Mapping[str, str]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for pattern in proxies.get("no", "").split(","):
        with contextlib.suppress(ValueError):
            if "/" in pattern and address in ipaddress.ip_network(pattern.strip(), strict=False):
                return True
    return False
