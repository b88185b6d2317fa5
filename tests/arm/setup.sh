#!/usr/bin/env bash
# An emulated 64-bit ARM Python in one folder: Debian's CPython for arm64, aarch64 wheels from PyPI, and qemu-user to run them.
#
#   setup.sh DIR [PYTHON]    PYTHON: whose versions of numpy, numba and the others to take (default: python3)
#
# A finished DIR is left as it is. Nothing outside DIR is changed: apt works on lists of its own, packages are unpacked, not
# installed. What is made is `DIR/armpy`, which stands in for `python`, and `DIR/count.so`, which counts instructions.
# Exit status 3: this machine cannot do it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(realpath -m "${1:?usage: setup.sh DIR [PYTHON]}")
python=${2:-python3}
release=bookworm abi=311 guest=python3.11  # Debian 12's qemu-user takes plugins, static builds do not
wheels="numpy numba llvmlite scipy h5py"
tests="pytest pluggy iniconfig packaging pygments hypothesis sortedcontainers"

cannot() { echo "no emulated aarch64: $1"; exit 3; }

[ "$(uname -sm)" = "Linux x86_64" ] || cannot "this is $(uname -sm), not Linux x86_64"
for tool in apt-get dpkg-deb cc tar; do command -v $tool > /dev/null || cannot "$tool is missing"; done

# Versions: those that PYTHON has, so that both sides run the same.
wanted=$("$python" - $wheels $tests <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version
for name in sys.argv[1:]:
    try:
        print(f"{name}=={version(name)}")
    except PackageNotFoundError:
        print(name)
PYTHON
)
made_from=$(echo "$release $abi" $wanted; cat "$here/setup.sh" "$here/count.c" | sha256sum)
if [ "$(cat "$dir/made-from" 2> /dev/null)" = "$made_from" ]; then
    echo "emulated aarch64: $dir is there"
    exit 0
fi
mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2> /dev/null | head -n 1 | tr -d ' ' || true)
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -n "$mirror" ] && [ -f $keys ] || cannot "apt's sources name no Debian mirror"

rm -rf "$dir"
mkdir -p "$dir"
cd "$dir"

packages() {  # ARCHITECTURE, then apt-get's words; lists, cache and state are this folder's
    local arch=$1 own="$dir/apt-$1"
    shift
    if [ ! -d "$own" ]; then
        mkdir -p "$own"/{etc/preferences.d,state/lists/partial,cache/archives/partial}
        touch "$own/status"
        echo "deb [arch=$arch signed-by=$keys] $mirror $release main" > "$own/sources.list"
        packages "$arch" update
    fi
    apt-get -qq -y -o Dir::Etc="$own/etc" -o Dir::Etc::SourceList="$own/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State="$own/state" -o Dir::State::Status="$own/status" -o Dir::Cache="$own/cache" -o APT::Sandbox::User=root \
        -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Install-Recommends=false -o Acquire::Languages=none "$@" > "$dir/apt.log" 2>&1
}

# 1. The emulator.
mkdir emulator packages
(cd packages && packages amd64 download qemu-user libcapstone4 liburing2 libnuma1 libglib2.0-0) || cannot "qemu-user cannot be fetched: $(tail -n 1 apt.log)"
for package in packages/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C emulator --wildcards --no-anchored 'qemu-aarch64' '*.so*' 2> /dev/null || true  # most packages lack one of them
done

# 2. The guest's files.
packages arm64 -o APT::Immediate-Configure=false --download-only install $guest libgomp1 libstdc++6 || cannot "$guest for arm64 cannot be fetched: $(tail -n 1 apt.log)"
mkdir root
for package in apt-arm64/cache/archives/*.deb; do dpkg-deb -x "$package" root; done

# 3. The wheels, unpacked by this machine's pip.
platforms=$(for tag in manylinux_2_28_aarch64 manylinux_2_27_aarch64 manylinux_2_17_aarch64 manylinux2014_aarch64 any; do echo "--platform $tag"; done)
"$python" -m pip install -q --no-compile --no-deps --only-binary=:all: --implementation cp --python-version $abi --abi cp$abi --abi abi3 --abi none $platforms \
    --root-user-action=ignore --disable-pip-version-check --target site $wanted > pip.log 2>&1 || cannot "wheels cannot be fetched: $(tail -n 1 pip.log)"

# 4. The counter, and what stands in for `python`.
cc -O2 -Wall -Wextra -Werror -shared -fPIC "$here/count.c" -o count.so
cat > armpy <<ARMPY
#!/bin/sh
# Emulated aarch64 Python. EVSNN_ARM_CPU: cortex-a72 (default), cortex-a76, cortex-a53. EVSNN_ARM_PLUGIN: a plugin of QEMU and its arguments.
# Never "max": it has SVE, which no Raspberry Pi has. numba is told the core's name, since /proc/cpuinfo shows the host's.
cpu=\${EVSNN_ARM_CPU:-cortex-a72}
export NUMBA_CPU_NAME=\$cpu NUMBA_CPU_FEATURES= OPENBLAS_NUM_THREADS=\${OPENBLAS_NUM_THREADS:-1}
export PYTHONHOME='$dir/root/usr' PYTHONPATH="$dir/site\${PYTHONPATH:+:\$PYTHONPATH}"
export LD_LIBRARY_PATH='$dir/emulator/usr/lib/x86_64-linux-gnu:$dir/emulator/lib/x86_64-linux-gnu'
unset OPENBLAS_CORETYPE
exec '$dir/emulator/usr/bin/qemu-aarch64' -E LD_LIBRARY_PATH= -cpu "\$cpu" \${EVSNN_ARM_PLUGIN:+-plugin "\$EVSNN_ARM_PLUGIN"} \\
    -0 '$dir/armpy' -L '$dir/root' '$dir/root/usr/bin/$guest' "\$@"
ARMPY
chmod +x armpy
rm -rf packages apt-amd64 apt-arm64 root/usr/share/{doc,man,locale,info}
./armpy -c "import platform, numpy, scipy, h5py, numba; assert platform.machine() == 'aarch64'
print('emulated aarch64: Python', platform.python_version(), '| numpy', numpy.__version__, '| numba', numba.__version__)"
echo "$made_from" > made-from
