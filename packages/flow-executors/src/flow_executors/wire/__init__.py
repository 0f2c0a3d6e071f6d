"""Messages between client, interchange and manager. No I/O but in ``link`` and ``keys``."""
