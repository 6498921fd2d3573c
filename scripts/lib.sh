# Shared by the scripts: says what it does, installs what is missing, builds RocksDB once.
# Sourced, never run. No logic that belongs in the program.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/clusterd
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}

step() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"
  else fail "this needs root: $*"; fi
}

# need COMMAND:PACKAGE ... installs the packages whose commands are missing (Debian and Ubuntu).
need() {
  local missing=() pair
  for pair in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || fail "please install: ${missing[*]}"
  step "Installing ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_build_tools() {
  need cc:build-essential clang:clang protoc:protobuf-compiler pkg-config:pkg-config
  # bindgen loads libclang at build time
  ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 || need no-such-command:libclang-dev
  command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
  command -v cargo >/dev/null || fail "Rust is missing: see https://rustup.rs"
}

# RocksDB is 9 to 12 minutes of C++ on two cores. It is built once into the cache and linked by
# every profile and every clone (librocksdb-sys honours ROCKSDB_LIB_DIR).
need_rocksdb() {
  local version dir out began=$SECONDS target=$CACHE/rocksdb-build
  version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/version = "\(.*\)"/\1/p}' "$ROOT/Cargo.lock")
  dir=$CACHE/rocksdb/$version
  if [ ! -f "$dir/librocksdb.a" ]; then
    step "Building RocksDB $version once (about 10 minutes on two cores)"
    (cd "$ROOT" && CARGO_TARGET_DIR=$target cargo build --locked --release -p librocksdb-sys)
    out=$(ls -t "$target"/release/build/librocksdb-sys-*/out/librocksdb.a | head -1)
    mkdir -p "$dir"
    cp "$out" "$dir/librocksdb.a.new"
    mv "$dir/librocksdb.a.new" "$dir/librocksdb.a"
    rm -rf "$target"
    step "RocksDB took $((SECONDS - began)) s"
  fi
  export ROCKSDB_LIB_DIR=$dir ROCKSDB_STATIC=1
}

docker_answers() { docker version >/dev/null 2>&1; }

# Docker Engine, started here only where no init system does it.
need_docker() {
  need dockerd:docker.io iptables:iptables
  if docker_answers; then return; fi
  if [ -d /run/systemd/system ]; then
    step "Starting Docker"
    as_root systemctl start docker
  else
    step "Starting dockerd (no init system here); log in /tmp/dockerd.log"
    as_root sh -c 'PATH=$PATH:/usr/sbin:/sbin setsid nohup dockerd >/tmp/dockerd.log 2>&1 &'
  fi
  local tries
  for tries in $(seq 100); do docker_answers && return; sleep 0.3; done
  tail -5 /tmp/dockerd.log >&2 || true
  fail "Docker does not answer"
}
