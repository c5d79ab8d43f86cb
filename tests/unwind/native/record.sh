#!/bin/sh
# Makes code.dll and run.txt anew: on Linux x64, with a C compiler and Zig's (`pip install ziglang`), which compiles for
# Windows too. Both are committed, so that the test needs neither.
set -eu
cd "$(dirname "$0")"
"${PYTHON:-python3}" -m ziglang cc -target x86_64-windows-gnu -O1 -fomit-frame-pointer -fno-optimize-sibling-calls -fno-sanitize=all -shared -nostdlib \
    -s -o code.dll code.c
rm -f code.lib code.pdb
cc -O1 -no-pie -o /tmp/verikd-run run.c
/tmp/verikd-run code.dll > run.txt
rm /tmp/verikd-run
