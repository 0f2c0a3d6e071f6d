"""Messages between client, interchange and manager. No I/O but in ``transport`` and ``auth``."""
