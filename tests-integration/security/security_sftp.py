"""An sftp server that lies about what is in its directories. It runs under this Python: it needs paramiko."""

from __future__ import annotations

SFTP_LIES = r"""
import json, socket, stat, sys, threading
import paramiko
key = paramiko.RSAKey.from_private_key_file(sys.argv[1])
names = json.loads(sys.argv[2])  # what is in each directory; null: names without end

class Door(paramiko.ServerInterface):
    def check_channel_request(self, kind, number): return paramiko.OPEN_SUCCEEDED
    def check_auth_password(self, user, password): return paramiko.AUTH_SUCCESSFUL
    def get_allowed_auths(self, user): return "password"

def entry(name, mode):
    made = paramiko.SFTPAttributes()
    made.filename, made.longname = name, name
    if name == "bare":  # a server need not state any of them
        return made
    made.st_mode, made.st_size, made.st_uid, made.st_gid, made.st_mtime, made.st_atime = mode, 5, 0, 0, 1, 1
    return made

class Endless(list):
    # paramiko takes parts of it off, and stops when it is empty
    def __init__(self): self.number = 0
    def __bool__(self): return True
    def __len__(self): return 1 << 40
    def __getitem__(self, part):
        if not isinstance(part, slice): raise IndexError
        if part.stop is None: return self
        self.number += 100
        return [entry(f"{self.number + n:040d}", stat.S_IFREG | 0o644) for n in range(100)]

class Lies(paramiko.SFTPServerInterface):
    def list_folder(self, path):
        print(json.dumps([path, {}]), flush=True)
        if names is None:
            return Endless()
        return [entry(name, stat.S_IFREG | 0o644) for name in names]
    def stat(self, path):
        return entry(path, stat.S_IFDIR | 0o755 if path.rstrip("/").endswith("dir") else stat.S_IFREG | 0o644)
    lstat = stat
    def open(self, path, flags, attributes):
        print(json.dumps(["open " + path, {}]), flush=True)
        return paramiko.SFTP_NO_SUCH_FILE

kept = []

def served(connection):
    transport = paramiko.Transport(connection)
    transport.add_server_key(key)
    transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Lies)
    transport.start_server(server=Door())
    kept.append(transport)

listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    threading.Thread(target=served, args=(listening.accept()[0],), daemon=True).start()
"""
