# Sourced by the other scripts: what the machine must have, and the build.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { echo "martlet: $*" >&2; }
fail() { say "$@"; exit 2; }

BUILD_PACKAGES=(libfuse3-dev liblz4-dev libisal-dev libssl-dev fuse3 git ca-certificates)
TEST_PACKAGES=(sqlite3 python3 attr acl iproute2 nftables rsync)

install_packages() { # install_packages PACKAGE...: those that are missing
    local package missing=() become=()
    for package; do
        [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == *"ok installed" ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID)); then
        if ! command -v sudo >/dev/null || ! sudo -v; then
            fail "Debian packages are missing; run: apt-get install -y ${missing[*]}"
        fi
        become=(sudo)
    fi
    say "installing ${missing[*]}"
    "${become[@]}" apt-get update -q >&2 || say "apt-get update failed; trying all the same"
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}" >&2 ||
        fail "these Debian packages could not be installed: ${missing[*]}"
}

check_swift() {
    command -v swift >/dev/null || fail "Swift is missing: install Swift 6.3 (https://swift.org/install)"
    local version
    version=$(swift --version 2>/dev/null | grep -oE 'Swift version [0-9]+\.[0-9]+' | head -n 1)
    version=${version##* }
    if [[ -z $version ]] || ((${version%.*} * 1000 + ${version#*.} < 6003)); then
        fail "Swift 6.3 is needed, this is ${version:-unknown}"
    fi
}

check_fuse() {
    [[ -c /dev/fuse ]] || { say "there is no /dev/fuse: nothing can be mounted here (modprobe fuse)"; return 1; }
}

is_stale() { # is_stale STAMP: something is newer than the last build
    [[ ! -e $1 || -n $(find "$root/Package.swift" "$root/Sources" "$root/tools" -newer "$1" -print -quit) ]]
}

build_product() { # build_product NAME: release, if a source is newer than it
    local stamp=$root/.build/stamp-$1 log=$root/.build/log-$1
    if [[ -x $root/.build/release/$1 ]] && ! is_stale "$stamp"; then return; fi
    check_swift
    install_packages "${BUILD_PACKAGES[@]}"
    check_fuse || :
    mkdir -p "$root/.build"
    say "building $1 (a few minutes the first time)"
    touch "$stamp.new"
    if ! swift build --package-path "$root" -c release --product "$1" >"$log" 2>&1; then
        cat "$log" >&2
        fail "the build failed"
    fi
    git -C "$root" rev-parse --short HEAD >"$root/.build/release/$1.commit" 2>/dev/null || :
    mv "$stamp.new" "$stamp"
}
