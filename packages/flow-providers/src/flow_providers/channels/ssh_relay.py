"""The relay of a reverse forward: a program for the login node's ``python3``, sent as text.

It listens on all interfaces, tells its addresses on one line, passes each connection on to the forward (a path, or
``127.0.0.1:port``), and ends with the session that started it. What it passes is encrypted, and refused without a
block's key by the interchange.
"""

RELAY = """
import fcntl, os, select, socket, struct, sys, threading
where, port = sys.argv[1], int(sys.argv[2])

def far():
    if where.startswith("/"):
        end = socket.socket(socket.AF_UNIX)
        end.connect(where)
        return end
    host, _, number = where.rpartition(":")
    return socket.create_connection((host, int(number)), 10)

def copy(source, sink):
    try:
        while True:
            piece = source.recv(65536)
            if not piece:
                break
            sink.sendall(piece)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

def serve(near):
    try:
        end = far()
        end.settimeout(None)
    except OSError:
        near.close()
        return
    other = threading.Thread(target=copy, args=(near, end), daemon=True)
    other.start()
    copy(end, near)
    other.join()
    near.close()
    end.close()

def listen(number):
    try:
        made = socket.socket(socket.AF_INET6)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        any_ = "::"
    except OSError:
        made, any_ = socket.socket(), ""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((any_, number))
    made.listen(128)
    return made

def addresses():
    yield socket.gethostname()
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _, name in socket.if_nameindex():
        try:
            packed = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()[:15]))
        except OSError:
            continue
        address = socket.inet_ntoa(packed[20:24])
        if not address.startswith("127."):
            yield address
    try:
        lines = open("/proc/net/if_inet6").read().split("\\n")
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields and fields[3] == "00":
            yield "[" + socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[0])) + "]"

try:
    listening = listen(port)
except OSError:
    listening = listen(0)
number = listening.getsockname()[1]
print(" ".join("%s:%d" % (one, number) for one in dict.fromkeys(addresses())), flush=True)
while True:
    ready = select.select([listening, 0], [], [])[0]
    if 0 in ready and not os.read(0, 4096):
        os._exit(0)
    if listening in ready:
        try:
            threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
        except OSError:
            pass
"""
