#!/bin/sh
# Installs the system packages that the tests need and Python cannot bring. What cannot be installed is skipped by the
# tests that need it, so this never fails.

missing=""
need() { # package, what is skipped without it, a command that tells whether it is there
    if ! sh -c "$3" >/dev/null 2>&1; then
        missing="$missing $1"
        echo "missing: $1 (without it, these tests are skipped: $2)"
    fi
}

need postgresql "the record and the lake on PostgreSQL" "ls /usr/lib/postgresql/*/bin/initdb || command -v initdb"
need chromium "the pages in a browser" "command -v chromium || command -v chromium-browser || command -v google-chrome"
need fonts-noto-cjk "Chinese text in the browser" "ls /usr/share/fonts/opentype/noto/NotoSansCJK* || fc-list :lang=zh | grep -q ."
need nodejs "the conformance cases in JavaScript" "command -v node"
need npm "Node clients of others against Upturn" "command -v npm"

[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "not installed: this needs root and apt-get"
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || echo "the package lists could not be read"
for package in $missing; do
    apt-get install -y -qq --no-install-recommends "$package" >/dev/null || echo "could not install $package"
done
exit 0
