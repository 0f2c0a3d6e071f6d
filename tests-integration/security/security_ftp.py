"""An ftp server that another user runs, and that lies as it is told: answers, listings, ports, and TLS."""

from __future__ import annotations

FTP_LIES = """
import json, socket, ssl, sys, threading, time
# said: answers by command; data: what comes by a data connection, as JSON text; how: kinds of lies; at: address; pem
said, data, how, at, pem = (*map(json.loads, sys.argv[1:4]), sys.argv[4], sys.argv[5])
family = socket.AF_INET6 if ":" in at else socket.AF_INET
passive = socket.create_server((at, 0), family=family)
port = passive.getsockname()[1]
context = None
if pem:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
answers = {"USER": "331 password", "PASS": "230 in", "TYPE": "200 binary", "NOOP": "200 here", "OPTS": "200 well",
           "SIZE": "213 5", "MDTM": "213 20230102030405", "PWD": '257 "/"', "CWD": "250 there", "PBSZ": "200 0",
           "PROT": "200 private", "AUTH": "234 go on", "150": "150 coming", "DELE": "250 gone",
           "RNFR": "350 and to", "RNTO": "250 renamed", "BANNER": "220 here",
           "PASV": f"227 (127,0,0,1,{port >> 8},{port & 255})", "EPSV": f"229 (|||{port}|)", **said}

def drip(to):
    while True:
        to.sendall(b"2")
        time.sleep(0.05)

def say(control, command):
    if command in how.get("drip", []):
        drip(control)
    if command in how.get("line", []):
        while True:
            control.sendall(b"x" * 65536)
    control.sendall((answers.get(command, "502 unknown") + "\\r\\n").encode("latin-1"))

def send(control, command):
    pipe, _ = passive.accept()
    say(control, "150")
    if context is not None and "plain" not in how:
        pipe = context.wrap_socket(pipe, server_side=True)
    with pipe:
        if command == "STOR":
            while pipe.recv(65536):
                pass
        elif "slow" in how:
            drip(pipe)
        elif "silent" in how:
            pipe.recv(1)
            raise OSError("left")
        elif "line" in how and not how["line"]:
            while True:
                pipe.sendall(b"x" * 65536)
        else:
            pipe.sendall(data.encode("latin-1"))
    control.sendall(b"226 done\\r\\n")

def talk(control):
    say(control, "BANNER")
    rest = b""
    while True:
        while b"\\n" not in rest:
            piece = control.recv(4096)
            if not piece:
                return
            rest += piece
        line, _, rest = rest.partition(b"\\n")
        command, _, name = line.decode("latin-1").strip().partition(" ")
        print(json.dumps([command, {"name": name}]), flush=True)
        if command in ("RETR", "STOR", "MLSD", "NLST") and command not in said:
            send(control, command)
            continue
        if command in ("RETR", "STOR", "MLSD", "NLST"):
            passive.accept()[0].close()
        say(control, command)
        if command == "AUTH" and answers["AUTH"].startswith("234"):
            control = context.wrap_socket(control, server_side=True)

def served(control):
    try:
        talk(control)
    except OSError:
        print(json.dumps(["left", {}]), flush=True)
    control.close()

listening = socket.create_server((at, 0), family=family)
print(listening.getsockname()[1], flush=True)
while True:
    threading.Thread(target=served, args=(listening.accept()[0],), daemon=True).start()
"""
