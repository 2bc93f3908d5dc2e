# SPDX-License-Identifier: Apache-2.0
#
# cmake -DIN=file -DOUT=header -DNAME=symbol -P embed.cmake: a file as a C array, without needing xxd.

file(READ ${IN} hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(TOUPPER ${NAME} upper)
file(WRITE ${OUT}
"/* Generated from ${NAME}; do not edit. */
#ifndef ${upper}_H
#define ${upper}_H
#define ${upper}_SIZE ${size}u
static const unsigned char ${NAME}[${size}] = {
${bytes}
};
#endif
")
