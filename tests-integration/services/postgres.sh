#!/bin/sh
# PostgreSQL for the tests, without system services: Debian's packages, a cluster of its own, loopback only.
#   postgres.sh install          installs the packages (needs root)
#   postgres.sh start DIR PORT   makes a cluster in DIR and serves it in the foreground; SIGINT ends it
set -eu

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1 || true)

case "${1:-}" in
install)
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql
    ;;
start)
    dir=$2 port=$3
    [ -n "$bin" ] || { echo "PostgreSQL is not installed: run $0 install" >&2; exit 1; }
    mkdir -p "$dir/data"
    as=""
    if [ "$(id -u)" = 0 ]; then  # it refuses to run as root
        chmod 755 "$dir"
        chown postgres:postgres "$dir/data"
        as="setpriv --reuid=postgres --regid=postgres --init-groups"
    fi
    cd "$dir/data"
    export HOME="$dir/data" LC_ALL=C.UTF-8
    $as "$bin/initdb" -D "$dir/data" -U postgres -A trust --no-sync -E UTF8 >/dev/null
    exec $as "$bin/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories="$dir/data" -c fsync=off -c synchronous_commit=off -c full_page_writes=off \
        -c shared_buffers=64MB
    ;;
*)
    echo "usage: $0 install | start DIR PORT" >&2
    exit 2
    ;;
esac
